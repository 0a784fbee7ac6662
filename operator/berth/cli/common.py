"""Options that several commands share, and how they end when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Kubeconfig = Annotated[
    Path | None, typer.Option(help="Else $KUBECONFIG, or ~/.kube/config.", exists=True, dir_okay=False)
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Its namespace; else the context's.")]
SnapshotFile = Annotated[
    Path | None,
    typer.Option(
        "--snapshot", help="Plan on what `berth snapshot` wrote, not on a cluster.", exists=True, dir_okay=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@contextmanager
def failing() -> Iterator[None]:
    """Say in one line what can't be read or written, with exit status 1."""
    from kubernetes.config import ConfigException

    from berth.adapters.oneshot import Unreadable
    from berth.cli.explanation import UnknownWorkload
    from berth.cli.saved import SavedError
    from berth.control.ports import ApiError

    try:
        yield
    except OSError as error:
        if error.filename is None:  # no file: whoever read stdout went away, which typer knows about
            raise
        typer.echo(f"berth: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    except (UnknownWorkload, SavedError, Unreadable, ApiError, ConfigException) as error:
        typer.echo(f"berth: {error or type(error).__name__}", err=True)
        raise typer.Exit(1) from error
