"""Options that several commands share, and how they end when something is wrong."""

from __future__ import annotations

import re
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
Timeout = Annotated[str, typer.Option(help="Follow no longer than this, such as 15m or 2h. Absent: for ever.")]


def seconds_of(timeout: str) -> float | None:
    """A time limit of the command line; None: there is none. Raises typer.BadParameter."""
    from berth.model.resources import duration_seconds

    if not timeout:
        return None
    if not re.fullmatch("([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?", timeout):
        raise typer.BadParameter("must be a duration such as 90s, 15m or 2h", param_hint="--timeout")
    return float(duration_seconds(timeout))


@contextmanager
def failing() -> Iterator[None]:
    """Say in one line what can't be read or written, with exit status 1."""
    from kubernetes.config import ConfigException

    from berth.adapters.oneshot import Unreadable
    from berth.cli.explanation import UnknownWorkload
    from berth.cli.following import NotAsWanted
    from berth.cli.saved import SavedError
    from berth.control.ports import ApiError

    try:
        yield
    except OSError as error:
        if error.filename is None:  # no file: whoever read stdout went away, which typer knows about
            raise
        typer.echo(f"berth: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    except (UnknownWorkload, NotAsWanted, SavedError, Unreadable, ApiError, ConfigException) as error:
        typer.echo(f"berth: {error or type(error).__name__}{_advice(error)}", err=True)
        raise typer.Exit(1) from error


def _advice(error: Exception) -> str:
    """What to do about what an API server or a kubeconfig said, on a line of its own; "" where the error says it."""
    from kubernetes.config import ConfigException

    from berth.control.ports import NotFound, Refused, Unavailable

    said = str(error)
    if isinstance(error, ConfigException):
        return "\nname a file with --kubeconfig or $KUBECONFIG; the current context of it is used, as kubectl does"
    if isinstance(error, Unavailable):
        return "\nsee whether the cluster answers (kubectl get --raw=/readyz), and whether the context is the right one"
    if isinstance(error, NotFound) and ("requested resource" in said or "page not found" in said):
        from berth.adapters.oneshot import NOT_INSTALLED

        return f"\n{NOT_INSTALLED}"
    if isinstance(error, Refused) and "forbidden" in said and "\n" not in said:
        return "\nask an administrator for that right: docs/cli.md says which role of the chart has it"
    return ""
