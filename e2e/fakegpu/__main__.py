"""Command line: `python -m e2e.fakegpu fleet|plugin|agent|metadata|manifests|set-health|set-load`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

import yaml

from berth.adapters.kube import connect as berth_connect
from berth.agent.program import Interruptions, Settings
from berth.agent.program import run as run_agent
from e2e.fakegpu.agent import GPUS_SOCKET, RealNode
from e2e.fakegpu.agents import Agents, listen
from e2e.fakegpu.deploy import METADATA_PORT, SHARED, plugin_manifests
from e2e.fakegpu.driver import RemoteDriver
from e2e.fakegpu.fleet import FleetError, load_fleet, preset_names
from e2e.fakegpu.kube import ApiError, connect
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.metadata import serve
from e2e.fakegpu.objects import LOAD, UNHEALTHY


def main() -> int:
    """Run the command line; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    args = _parser().parse_args()
    try:
        return asyncio.run(_until_stopped(args.run(args)))
    except (FleetError, ApiError) as error:
        print(f"fakegpu: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fakegpu", description="A fake GPU fleet.")
    commands = parser.add_subparsers(required=True)
    fleet = commands.add_parser("fleet", help="create the fleet's KWOK nodes, and play them")
    fleet.add_argument("--fleet", required=True, help=f"a file, or one of: {', '.join(preset_names())}")
    fleet.add_argument("--kubeconfig")
    fleet.add_argument("--once", action="store_true", help="create nodes and labels only")
    fleet.add_argument("--taint", type=_taint, help="KEY=VALUE:EFFECT that every node gets")
    fleet.set_defaults(run=_fleet)
    plugin = commands.add_parser("plugin", help="serve one real node's boards to its kubelet")
    plugin.add_argument("--fleet", required=True, help="a file or preset whose pools name real nodes")
    plugin.add_argument("--node", required=True)
    plugin.add_argument("--kubeconfig")
    plugin.add_argument("--kubelet", type=Path, default=Path("/var/lib/kubelet"), help="its root folder")
    plugin.add_argument("--shared", type=Path, default=Path(SHARED), help="folder of the socket that an agent uses")
    plugin.add_argument("--metadata-port", type=int, default=0, help="of fake metadata services; 0: none")
    plugin.set_defaults(run=_plugin)
    agent = commands.add_parser("agent", help="the real node agent, on the simulated boards that `plugin` serves")
    agent.add_argument("--node", required=True)
    agent.add_argument("--kubeconfig")
    agent.add_argument("--pod-resources", type=Path, default=Path("/var/lib/kubelet/pod-resources/kubelet.sock"))
    agent.add_argument("--health-port", type=int, default=8082)
    agent.add_argument("--shared", type=Path, default=Path(SHARED))
    agent.add_argument("--interruptions", type=Interruptions, choices=list(Interruptions), default=Interruptions.NONE)
    agent.add_argument("--metadata-endpoint", default="")
    agent.set_defaults(run=_agent)
    metadata = commands.add_parser("metadata", help="fake metadata services of clouds, for any machines")
    metadata.add_argument("--port", type=int, default=METADATA_PORT)
    metadata.set_defaults(run=_metadata)
    manifests = commands.add_parser("manifests", help="print what runs the plugin on a cluster's real nodes")
    manifests.add_argument("--image", required=True)
    manifests.add_argument("--fleet", default="kind", help="a preset of the image")
    manifests.set_defaults(run=_manifests)
    health = commands.add_parser("set-health", help="break boards of a node, or heal them")
    health.add_argument("--kubeconfig")
    health.add_argument("--node", required=True)
    health.add_argument("--unhealthy", default="", help="indices of all broken boards, such as 0,3; empty: none")
    health.set_defaults(run=_set_health)
    load = commands.add_parser("set-load", help="have boards and MIG instances of a node do this much")
    load.add_argument("--kubeconfig")
    load.add_argument("--node", required=True)
    load.add_argument("--load", default="", help="0=0.8,2@4=0.35: board, or board@start; empty: as it comes")
    load.set_defaults(run=_set_load)
    return parser


def _taint(text: str) -> dict[str, str]:
    key, _, rest = text.partition("=")
    value, _, effect = rest.partition(":")
    if not (key and effect):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE:EFFECT")
    return {"key": key, "value": value, "effect": effect}


async def _fleet(args: argparse.Namespace) -> int:
    fleet = load_fleet(args.fleet)
    async with connect(args.kubeconfig) as kube:
        players = KwokFleet(kube, fleet, args.taint)
        began = time.monotonic()
        await players.create()
        logging.info("%d nodes in %.1f s", len(players.nodes), time.monotonic() - began)
        if not args.once:
            await _play(players, args.kubeconfig)
    return 0


async def _play(players: KwokFleet, kubeconfig: str | None) -> None:
    """Play the nodes, and run the real agents of those that have one."""
    async with berth_connect(kubeconfig) as api, asyncio.TaskGroup() as group:
        group.create_task(players.run())
        agents = Agents(api, players)
        if agents.agents:
            group.create_task(agents.run())


async def _plugin(args: argparse.Namespace) -> int:
    fleet = load_fleet(args.fleet)
    async with connect(args.kubeconfig) as kube:
        node = RealNode(kube, fleet, args.node, args.kubelet, args.shared)
        async with asyncio.TaskGroup() as group:
            if args.metadata_port:
                group.create_task(serve(args.metadata_port))
                if not node.node.member.pool.agent:
                    group.create_task(_listen(args))
            group.create_task(node.run())
    return 0


async def _listen(args: argparse.Namespace) -> None:
    async with berth_connect(args.kubeconfig) as api:
        await listen(api, args.node, f"http://127.0.0.1:{args.metadata_port}")


async def _metadata(args: argparse.Namespace) -> int:
    await serve(args.port)
    return 0


async def _agent(args: argparse.Namespace) -> int:
    driver = RemoteDriver(args.shared / GPUS_SOCKET)
    settings = Settings(
        args.node,
        args.pod_resources,
        args.health_port,
        kubeconfig=args.kubeconfig,
        interruptions=args.interruptions,
        metadata_address=args.metadata_endpoint,
    )
    return await run_agent(settings, boards=driver, plugin=driver)


async def _manifests(args: argparse.Namespace) -> int:
    print(yaml.safe_dump_all(plugin_manifests(args.image, args.fleet), sort_keys=False))
    return 0


async def _set_health(args: argparse.Namespace) -> int:
    return await _annotate(args, UNHEALTHY, args.unhealthy)


async def _set_load(args: argparse.Namespace) -> int:
    return await _annotate(args, LOAD, args.load)


async def _annotate(args: argparse.Namespace, annotation: str, value: str) -> int:
    async with connect(args.kubeconfig) as kube:
        body = {"metadata": {"annotations": {annotation: value or None}}}
        await kube.merge(f"/api/v1/nodes/{args.node}", body)
    return 0


async def _until_stopped(work: asyncio.Future[int]) -> int:
    """Run the work until it ends or SIGTERM or SIGINT comes."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
