"""Stories told again with the operator killed in the middle: the end must be the same.

`BERTH_E2E_KILLS`, such as "0.5,2,8", has each such story told once more for each of these moments, in seconds after the
story takes its turn. `make chaos` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from e2e.cluster.engine import lease
from e2e.kubectl import Kubectl

KILLS = [None, *(float(part) for part in os.environ.get("BERTH_E2E_KILLS", "").split(",") if part)]
killed = pytest.mark.parametrize("kill_after", KILLS)


@contextmanager
def operator_killed(kubectl: Kubectl, after: float | None) -> Iterator[None]:
    """Have the operator killed so many seconds from now, and made anew; None: leave it alone."""
    if after is None:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(_kill_operator, kubectl, time.monotonic() + after)
        yield
        killing.result()


def _kill_operator(kubectl: Kubectl, at: float) -> None:
    """SIGKILL to its process; its pod is deleted, too, since the kubelet would restart it the later the oftener."""
    time.sleep(max(0.0, at - time.monotonic()))
    where = ("--namespace=berth-system", "--selector=app.kubernetes.io/name=berth")
    (node,) = kubectl("get", "pods", *where, "--output=jsonpath={.items[*].spec.nodeName}").split()
    with lease() as engine:
        engine.docker("exec", node, "pkill", "-KILL", "-f", "[b]erth operator --config")
    kubectl("delete", "pods", *where, "--force", "--grace-period=0")
