"""The program around the agent."""

from __future__ import annotations

import json
from ctypes.util import find_library

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from kubernetes.config import ConfigException
from typer.testing import CliRunner

from berth.adapters import kube, nvml
from berth.adapters.records import Decoder
from berth.agent.program import HUNG_SECONDS, GPUNodeObject, measurer_of, pages
from berth.cli.main import app
from berth.control.gpus import GpuError
from tests.agent.nodes import World, a_node


def served(world: World) -> web.Application:
    return pages(world.agent, measurer_of(world.agent, world.driver), world.api.clock)


async def test_an_agent_that_hangs_in_the_driver_is_not_alive() -> None:
    world = World(a_node())
    await world.look()
    async with TestClient(TestServer(served(world))) as client:
        assert (await client.get("/healthz")).status == 200
        world.api.clock.advance(HUNG_SECONDS + 1)
        assert (await client.get("/healthz")).status == 500


async def test_an_agent_that_only_began_is_alive() -> None:
    world = World(a_node())
    async with TestClient(TestServer(served(world))) as client:
        assert (await client.get("/healthz")).status == 200


def test_reads_of_a_gpunode_what_it_needs() -> None:
    raw = {
        "metadata": {"name": "n-0", "uid": "u", "resourceVersion": "7", "generation": 3},
        "spec": {"boards": []},
        "status": {"layouts": "Agent"},
    }
    seen = Decoder[object](GPUNodeObject).one(json.dumps(raw).encode()).seen  # type: ignore[attr-defined]
    assert (seen.generation, seen.version, seen.spec, seen.status) == (3, 7, {"boards": []}, {"layouts": "Agent"})


async def test_a_machine_without_a_driver_is_told_what_it_lacks() -> None:
    if find_library("nvidia-ml"):
        pytest.skip("this machine has NVIDIA's driver")
    with pytest.raises(GpuError, match=r"no libnvidia-ml.so.1: run the agent with the NVIDIA container runtime"):
        await nvml.connect().read()


def test_says_in_one_line_that_it_finds_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise ConfigException("no configuration found")

    monkeypatch.setattr(kube.config, "load_kube_config", none)
    monkeypatch.setattr("berth.cli.agent.configure", lambda *_: None)  # else later tests log into this one's output
    done = CliRunner().invoke(app, ["agent", "--node=n-0"])
    assert (done.exit_code, done.stderr) == (2, "berth: no configuration found\n")


def test_must_be_told_its_node() -> None:
    done = CliRunner().invoke(app, ["agent"], env={"NODE_NAME": ""})
    assert done.exit_code == 2
