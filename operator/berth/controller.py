"""The operator: wires kopf, the watches and the API client to the cycle, and acts only while it holds the Lease."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kopf
from kopf._core.engines.peering import Identity

from berth import __version__
from berth.adapters.endpoint import Endpoint
from berth.adapters.health import Health, serve
from berth.adapters.kube import KubeApi, connect
from berth.adapters.lease import Lease, LeaseLost
from berth.adapters.metrics import Metrics
from berth.adapters.mig_manager import MigManager
from berth.adapters.mirrors import mirrors
from berth.adapters.node_agents import NodeAgents
from berth.adapters.prices import PriceFile
from berth.adapters.progress import ProgressServer
from berth.adapters.records import read_gpu_node, read_job, read_node, read_pod
from berth.adapters.tokens import Tokens
from berth.adapters.trust import CertificateAuthority
from berth.api.config import Config
from berth.api.convert import to_queue, to_workload
from berth.api.price_book import price_book
from berth.control.apply import Applier
from berth.control.checkpoints import Telling
from berth.control.cycle import Cycle
from berth.control.events import Recorder
from berth.control.keeping import Keeper
from berth.control.meter import Meter
from berth.control.observe import Convert, Observer, board_of
from berth.control.outlooks import Outlooks, Prices
from berth.control.partition import Partitioner, Partitions
from berth.control.picture import Picture, Raw
from berth.control.ports import INFERENCE_SERVICES, QUEUES, TRAINING_JOBS, ApiError, Resource
from berth.control.price_feed import Books, PriceFeed
from berth.control.progress import Desk, is_training
from berth.control.rates import Rates
from berth.control.validate import Validator
from berth.model.gpus import BoardModel
from berth.model.nodes import Way
from berth.model.prices import Place, PriceBook, place_of
from berth.planning.carbon import Outlook
from berth.planning.plan import plan
from berth.sources import feed, prices

log = logging.getLogger(__name__)

OURS = (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES)
RESYNC_SECONDS = 300.0  # how often our own objects are compared with a list, in case kopf missed a deletion
RETRY_SECONDS = 1.0
OWN_POD_SECONDS = 1.0  # between two looks at whether the own pod is to end
FIRST_LOOK_SECONDS = 15.0  # that the first plan waits for carbon sources at most
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


Told = Outlooks | Prices | PriceFeed
"""What keeps the plan told of something."""


@dataclass
class Operator:
    """One running operator."""

    api: KubeApi
    config: Config
    metrics: Metrics

    def __post_init__(self) -> None:
        config, api = self.config, self.api
        self.picture = Picture()
        self.rates = Rates(self.picture, time.time)
        self.endpoint = self._endpoint() if config.progress_host else None
        recorder = Recorder(api, time.time)
        convert = Convert(
            workload=lambda raw, priorities, volumes: to_workload(raw, priorities, volumes, config.default_queue),
            queue=to_queue,
        )
        observer = Observer(self.picture, convert, self.rates.taken_back, spot=self.rates.spot)
        self.meter = Meter(
            self.picture,
            observer,
            api,
            time.time,
            book=lambda: self.cycle.policy.prices,
            stale_seconds=config.stale_seconds,
        )
        self.cycle = Cycle(
            picture=self.picture,
            observer=observer,
            applier=Applier(
                api,
                self.picture,
                time.time,
                recorder,
                read_pod,
                read_job,
                telling=self._telling(),
                ask_now=self._ask_now,
                meter=self.meter,
            ),
            partitions=self._partitions(),
            validator=Validator(api, time.time),
            policy=config.policy(),
            plan=plan,
            clock=time.time,
            gauges=self.metrics,
            debounce_seconds=config.cycle_debounce_seconds,
        )
        self.picture.wake = self.cycle.wake
        self.picture.hurry = self.cycle.hurry
        self.reflectors = mirrors(api, self.picture, time.time)
        self.health = Health(self.metrics, self.reflectors, time.time)

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for the Lease, then act until told to stop. Raises LeaseLost, or whatever broke a part for good.

        The Lease has connections of its own: its renewal must not queue behind the writes of a busy moment.
        """
        config = self.config
        answered = self.metrics.answered
        async with (
            serve(self.health, config.metrics_port, config.health_port),
            connect(answered=answered) as lease_api,
        ):
            lease = self._lease(lease_api)
            acquired = asyncio.create_task(lease.acquire())
            if not await _first(acquired, stop):
                acquired.cancel()
                return
            self.metrics.leader.set(1)
            try:
                async with self._outlooks() as outlooks:
                    await self._act(lease, stop, outlooks)
            finally:
                self.metrics.leader.set(0)
                await lease.release()

    @asynccontextmanager
    async def _outlooks(self) -> AsyncIterator[list[Told]]:
        """What keeps the plan told of carbon and prices, as far as the configuration names sources."""
        config, found, books = self.config, list[Told](), Books(self._tell_prices)
        async with AsyncExitStack() as stack:
            if config.prices_file:
                found.append(Prices(PriceFile(Path(config.prices_file), price_book), books.take_filed))
            if config.prices.source != "none":
                live = prices(config.prices, self._places, books.take_live, self.metrics.prices_age.set)
                found.append(await stack.enter_async_context(live))
            if config.carbon.told:
                known = await stack.enter_async_context(feed(config.carbon, None))
                outlooks = Outlooks(
                    known, self.picture, config.carbon.zone_of, self._tell_outlooks, self.metrics.forecast_aged
                )
                self.meter.intensity = outlooks.intensity
                found.append(outlooks)
            yield found

    def _places(self) -> Mapping[str, tuple[BoardModel, Place]]:
        named = ((node.meta.name, node.meta.labels) for node in self.picture.nodes)
        return {name: (board, place_of(labels)) for name, labels in named if (board := board_of(labels))}

    def _tell_prices(self, book: PriceBook) -> None:
        self.cycle.policy = replace(self.cycle.policy, prices=book)
        self.cycle.wake()

    def _tell_outlooks(self, outlooks: Mapping[str, Outlook]) -> None:
        self.cycle.observer.outlooks = outlooks
        self.cycle.wake()

    async def _act(self, lease: Lease, stop: asyncio.Event, outlooks: Sequence[Told]) -> None:
        stop_kopf = asyncio.Event()
        tasks = [asyncio.create_task(lease.hold(), name="lease")]
        tasks += [asyncio.create_task(r.run(), name=f"watch-{r.resource.plural}") for r in self.reflectors]
        tasks.append(asyncio.create_task(self._kopf(stop_kopf, stop), name="kopf"))
        tasks.append(asyncio.create_task(self._plan(outlooks), name="cycle"))
        tasks.append(asyncio.create_task(self._leave_with_its_pod(stop), name="own-pod"))
        if self.endpoint is not None:
            tasks.append(asyncio.create_task(self.endpoint.run(), name="progress"))
            tasks.append(asyncio.create_task(self.keeper.run(), name="rates"))
        stopped = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        stop_kopf.set()
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)
        for task in done:
            if task is not stopped:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended by itself")

    async def _leave_with_its_pod(self, stop: asyncio.Event) -> None:
        """Stop when the own pod is told to end: on a node whose kubelet is dead no SIGTERM comes, but another waits."""
        name = os.environ.get("POD_NAME", "")
        while True:
            pod = self.picture.pods.get(own_namespace(), name)
            if pod is not None and pod.meta.deleting:
                log.warning("pod %s is to end: leaving, so that another operator acts", name)
                stop.set()
            await asyncio.sleep(OWN_POD_SECONDS)

    async def _plan(self, outlooks: Sequence[Told]) -> None:
        """Plan only on a whole picture: what is not seen yet would look like free room, or like hours all alike."""
        while not await self._resync():  # noqa: ASYNC110 - it asks again, nothing tells us
            await asyncio.sleep(RETRY_SECONDS)
        for reflector in self.reflectors:
            await reflector.listed.wait()
        self.health.ready = True
        log.info(
            "the picture is whole: %d nodes, %d pods, %d workloads",
            len(self.picture.nodes),
            len(self.picture.pods),
            len(self.picture.workloads),
        )
        with suppress(TimeoutError):  # who is silent holds up nobody
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                for one in outlooks:
                    await one.look()
        self.cycle.wake()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cycle.run())
            for one in outlooks:
                group.create_task(one.run())
            group.create_task(self._resync_for_ever())
            group.create_task(self.meter.run())

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            await self._resync()

    async def _resync(self) -> bool:
        """Compare our own objects with a list of them; whether that worked."""
        for resource in OURS:
            try:
                listed = await self.api.list(resource)
            except ApiError as error:
                log.warning("can't list %s.%s (is its CRD installed?): %s", resource.plural, resource.group, error)
                return False
            kind = listed["kind"].removesuffix("List")
            items: list[Raw] = [{"kind": kind, "apiVersion": listed["apiVersion"], **item} for item in listed["items"]]
            self.picture.resync(resource, items, int(listed["metadata"]["resourceVersion"]))
        return True

    async def _kopf(self, stop_kopf: asyncio.Event, stop: asyncio.Event) -> None:
        """Follow our own objects. What `kopf.operator` does, but that signals go on to stop the whole operator."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)
        for resource in OURS:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(self._handler(resource))
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=_settings(),
            identity=Identity("berth"),  # of no use without peering, but kopf would look for a user's name
            standalone=True,
            clusterwide=True,
            stop_flag=stop_kopf,
        )
        stop_by_signals(stop)
        await kopf.run_tasks(tasks, ignored=others)

    def _handler(self, resource: Resource) -> Callable[..., Awaitable[None]]:
        async def record(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
            raw = dict(body)
            if type == "DELETED":
                self.picture.forget(resource, raw["metadata"]["uid"])
            else:
                self.picture.record(resource, raw)

        return record

    def _partitions(self) -> Partitions:
        settings = self.config.mig_manager
        nodes = self.picture.nodes
        ways: dict[Way, Partitioner] = {
            Way.MIG_MANAGER: MigManager(self.api, lambda: nodes, settings.namespace, settings.config_map),
            Way.AGENT: NodeAgents(self.api),
        }
        return Partitions(self.api, self.picture, time.time, ways, read_pod, read_node, read_gpu_node)

    def _endpoint(self) -> Endpoint:
        config, picture = self.config, self.picture
        self.keeper = Keeper(self.rates, self.api, own_namespace(), time.time)
        authority = CertificateAuthority(
            api=self.api,
            clock=time.time,
            namespace=own_namespace(),
            hosts=[config.progress_host],
            in_use=lambda: {raw["metadata"]["namespace"] for raw in picture.workloads.values() if is_training(raw)},
        )
        self.desk = Desk(picture, self.api, time.time, self.rates.interval, self.metrics)
        server = ProgressServer(self.desk, Tokens(self.api, time.time))
        service = config.progress_host.partition(".")[0]
        return Endpoint(self.api, server, authority, service, config.progress_port, os.environ.get("POD_IP", ""))

    def _ask_now(self, uid: str) -> None:
        if self.endpoint is not None:
            self.desk.ask_now(uid)

    def _telling(self) -> Telling | None:
        if self.endpoint is None:
            return None
        address = f"https://{self.config.progress_host}:{self.config.progress_port}"
        return Telling(address, self.endpoint.authority, self.rates.mtbf)

    def _lease(self, api: KubeApi) -> Lease:
        election = self.config.leader_election
        return Lease(
            api=api,
            namespace=election.namespace or own_namespace(),
            name=election.name,
            identity=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
            duration_seconds=election.lease_duration_seconds,
            renew_deadline_seconds=election.renew_deadline_seconds,
            retry_seconds=election.retry_period_seconds,
        )


async def run(config: Config) -> int:
    """Run the operator until SIGTERM, SIGINT or the loss of the Lease; the exit status."""
    stop = asyncio.Event()
    stop_by_signals(stop)
    metrics = Metrics(__version__)
    async with connect(answered=metrics.answered) as api:
        try:
            await Operator(api, config, metrics).run(stop)
        except LeaseLost as error:
            log.error("lease lost, leaving at once: %s", error)
            return 1
    return 0


def stop_by_signals(stop: asyncio.Event) -> None:
    """Have SIGTERM and SIGINT set it, whoever took them before."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)


def own_namespace() -> str:
    """The namespace that this pod runs in; berth-system outside a pod."""
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "berth-system"


async def _first(task: asyncio.Task[None], stop: asyncio.Event) -> bool:
    """Whether the task ended before the stop was asked for."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    return task.done() and task.result() is None


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.networking.request_timeout = 30
    settings.scanning.disabled = True  # our kinds are there before the operator is, and need no permission to scan
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.queueing.batch_window = 0.0
    settings.persistence.finalizer = "berth.dev/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="berth.dev")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="berth.dev")
    return settings
