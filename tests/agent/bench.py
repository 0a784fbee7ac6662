"""What an agent costs on a full node: `python -m tests.agent.bench`, failing above the limits.

The program itself, in a process of its own, before a real API server and a kubelet's PodResources over gRPC; only the
boards are simulated, and answer over a socket in place of NVML. A page is fetched at the interval of measurements.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from berth.agent.measuring import MEASURE_SECONDS
from e2e.cluster.control_plane import free_ports
from e2e.cluster.provider import Provider, running
from e2e.demo import install
from e2e.fakegpu.agent import GPUS_SOCKET
from e2e.fakegpu.agents import driver_of
from e2e.fakegpu.driver import Driver, serving
from e2e.fakegpu.kube import Kube, connect
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.node import Holder
from tests.fakegpu.kubelet import FakeKubelet
from tests.fakegpu.machines import a_fleet

BOARDS, PER_BOARD = 8, 7
SETTLE_SECONDS, SECONDS = 30, 180
MOST_CORES, MOST_MIB = 0.01, 100


def main() -> int:
    """Measure on a cluster of its own; the exit code."""
    with running(Provider.LOCAL) as cluster:
        install.install_chart(cluster.kubeconfig, {"replicaCount": 0})
        cores, mib, series = asyncio.run(_measured(cluster.kubeconfig))
    print(f"{BOARDS} boards, {BOARDS * PER_BOARD} instances, {SECONDS} s, a page of {series} series every 10 s")
    print(f"{100 * cores:.2f} % of a core (limit {100 * MOST_CORES:.0f} %), at most {mib:.0f} MiB (limit {MOST_MIB})")
    return int(cores > MOST_CORES or mib > MOST_MIB)


async def _measured(kubeconfig: Path) -> tuple[float, float, int]:
    """Cores, MiB at most, and series on a page."""
    async with connect(str(kubeconfig)) as kube:
        fleet = KwokFleet(kube, a_fleet(agent=True, count=1, boardsPerNode=BOARDS, mig=_full()))
        await fleet.create()
        driver = driver_of(fleet.nodes["n-0"])
        with tempfile.TemporaryDirectory() as folder:
            async with _kubelet(kube, driver, Path(folder)), serving(driver, Path(folder) / GPUS_SOCKET):
                return await _run(kubeconfig, Path(folder))


def _full() -> list[dict[str, object]]:
    return [{"boards": list(range(BOARDS)), "layout": "all-1g.10gb"}]


@asynccontextmanager
async def _kubelet(kube: Kube, driver: Driver, folder: Path) -> AsyncIterator[None]:
    """A kubelet whose every device a pod of its own holds, as the API server knows it too."""
    kubelet = FakeKubelet(folder)
    await kubelet.start()
    try:
        devices = [instance.uuid for board in driver.node.boards for instance in board.instances]
        for number, device in enumerate(devices):
            name = f"work-{number}"
            holder = Holder("default", name)
            kubelet.held[holder] = {"nvidia.com/mig-1g.10gb": [device]}
            driver.node.holders[device] = holder
            metadata = {
                "name": name,
                "labels": {"berth.dev/name": name},
                "annotations": {"berth.dev/queue": "research"},
            }
            spec = {"nodeName": "n-0", "containers": [{"name": "main", "image": "none"}]}
            await kube.request("POST", "/api/v1/namespaces/default/pods", {"metadata": metadata, "spec": spec})
        yield
    finally:
        await kubelet.stop()


async def _run(kubeconfig: Path, folder: Path) -> tuple[float, float, int]:
    (port,) = free_ports(1)
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "e2e.fakegpu", "agent", "--node=n-0", f"--pod-resources={folder}/pod-resources/kubelet.sock"),
        *(f"--shared={folder}", f"--health-port={port}", f"--kubeconfig={kubeconfig}"),
    )
    try:
        await asyncio.sleep(SETTLE_SECONDS)
        begun, used, page = time.monotonic(), _cpu_seconds(program.pid), ""
        async with aiohttp.ClientSession() as session:
            while time.monotonic() - begun < SECONDS:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    page = await answer.text()
                await asyncio.sleep(MEASURE_SECONDS)
        assert page.count('workload="work-') > BOARDS * PER_BOARD, "the pods are not on the page"
        cores = (_cpu_seconds(program.pid) - used) / (time.monotonic() - begun)
        return cores, _peak_mib(program.pid), sum(not line.startswith("#") for line in page.splitlines())
    finally:
        program.terminate()
        await program.wait()


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    """The most memory that a process had resident."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
