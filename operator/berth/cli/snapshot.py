"""`berth snapshot`"""

from __future__ import annotations

import asyncio
import gzip
import sys
from pathlib import Path
from typing import Annotated

import typer

from berth.cli.common import Kubeconfig, failing


def snapshot(
    file: Annotated[
        Path,
        typer.Option("--output", "-o", help="A file, compressed where its name ends in .gz; - for stdout."),
    ] = Path("-"),
    kubeconfig: Kubeconfig = None,
) -> None:
    """Save what the operator plans on, for `berth what-if` and `berth explain`, here or elsewhere.

    It holds nodes, pods, workloads, queues and the operator's configuration, but no commands, no arguments and no
    values of environment variables. It changes nothing. Exit status: 0; 1 when the cluster can't be read or the file
    can't be written; 2 for a wrong command line.
    """
    from berth.cli.view import live

    with failing():
        text = asyncio.run(live(str(kubeconfig) if kubeconfig else None)).saved.write()
        if file == Path("-"):
            sys.stdout.write(text)
        else:
            file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
