"""The operator's own metrics, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from fractions import Fraction
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from berth.model.losses import Losses
from berth.model.reasons import Reason
from berth.model.usage import NOTHING, Usage
from berth.model.workloads import Kind, PodPhase, Workload
from berth.planning.actions import Admit, EndLayout, Plan, Stop
from berth.planning.lost import lost_seconds
from berth.planning.snapshot import Snapshot
from berth.planning.stock import stock_of

CYCLE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAIT_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
SAVE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
# Counters begin at 0: a rate does not see the step with which a series appears. Others are counted once they happen.
EVICTIONS = (
    *("SpotInterruption", "NodeTermination", "Maintenance", "Drain", "BoardUnhealthy", "NodeLost", "WorkerEvicted"),
    *("Preempted", "Reclaimed", "Consolidated", "Resized", "QueueStopped", "Suspended", "Requeued", "Restarted"),
    *("MaxRuntimeExceeded", "Hung", "Idle", "PausedForCarbon", "DeadlineAtRisk"),
)
REPARTITIONS = SUCCEEDED, GIVEN_UP = "succeeded", "given up"
NO_SUCH_QUEUE = ""  # the label of workloads in queues that do not exist: whoever applies them could name any number
# Who waits for one of these waits for its user or an administrator, or wants to wait.
OF_THEIR_OWN = {Reason.MISCONFIGURED, Reason.SUSPENDED, Reason.QUEUE_STOPPED, Reason.DEFERRED_FOR_CARBON}


class Metrics:
    """Implements `control.cycle.Gauges` and `control.progress.Measures`.

    Labels are bounded by queues, models and reasons, never by workloads.
    """

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        Info("berth_build", "The operator's version", registry=registry).info({"version": version})
        self.cycle = Histogram(
            "berth_cycle_duration_seconds", "One observe-plan cycle", buckets=CYCLE_BUCKETS, registry=registry
        )
        self.pending = Gauge("berth_pending_workloads", "Workloads that wait", ["queue", "reason"], registry=registry)
        self.longest = Gauge(
            "berth_longest_wait_seconds",
            "How long the job has waited that waits for longest, of those that would run if there were room",
            ["queue"],
            registry=registry,
        )
        self.admitted = Gauge(
            "berth_admitted_workloads", "Workloads that have their place", ["queue"], registry=registry
        )
        self.unbound = Gauge(
            "berth_unschedulable_pods",
            "Pods that have their node from Berth, and that kube-scheduler says it can't bind",
            ["queue"],
            registry=registry,
        )
        self.wait = Histogram(
            "berth_admission_wait_seconds",
            "From creation to admission of a TrainingJob",
            ["queue"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.evictions = Counter("berth_evictions", "Attempts told to stop", ["reason"], registry=registry)
        self.lost = Counter(
            "berth_lost_gpu_seconds",
            "Work of GPUs since the last durable checkpoint of attempts that ended before their time",
            ["reason"],
            registry=registry,
        )
        labels = ["queue", "model", "capacity_type"]
        self.used = Counter("berth_used_gpu_seconds", "Boards that workloads held", labels, registry=registry)
        self.cost = Counter("berth_cost_dollars", "What these cost, by the price book", labels, registry=registry)
        self.energy = Counter("berth_energy_joules", "What these took, hosts included", labels, registry=registry)
        self.carbon = Counter(
            "berth_carbon_grams", "CO2e of that energy, as far as its source is known", labels, registry=registry
        )
        self.saves = Histogram(
            "berth_checkpoint_save_seconds", "Saves of checkpoints", buckets=SAVE_BUCKETS, registry=registry
        )
        self.restores = Histogram(
            "berth_restore_seconds",
            "From all pods of an attempt ready to its first progress, where there was a checkpoint to go on from",
            buckets=SAVE_BUCKETS,
            registry=registry,
        )
        self.unsaved = Gauge(
            "berth_checkpoint_age_seconds",
            "Since the last durable checkpoint, or the start, of the running job with spec.checkpoint for which it is "
            "longest",
            ["queue", "spot"],
            registry=registry,
        )
        self.idle = Gauge(
            "berth_idle_workloads", "TrainingJobs whose boards were idle for too long", ["queue"], registry=registry
        )
        self.repartitions = Counter(
            "berth_repartitions", "Re-layouts of a node's boards that ended", ["result"], registry=registry
        )
        self.boards = Gauge(
            "berth_queue_gpus", "Boards by queue and quota name", ["queue", "model", "state"], registry=registry
        )
        self.gpus = Gauge("berth_gpus", "Boards of the cluster", ["model", "state"], registry=registry)
        self.instances = Gauge(
            "berth_mig_instances", "MIG instances of the cluster", ["profile", "state"], registry=registry
        )
        self.fragmentation = Gauge(
            "berth_fragmentation_ratio", "Share of free boards that lie on nodes in use", ["model"], registry=registry
        )
        self.suspects = Gauge(
            "berth_suspect_nodes", "Nodes that are avoided since different jobs crashed there", registry=registry
        )
        self.prices_age = Gauge(
            "berth_prices_age_seconds", "Since a source of live prices last told them", registry=registry
        )
        self.carbon_age = Gauge(
            "berth_carbon_age_seconds",
            "Since a source of carbon intensity made its forecast",
            ["zone"],
            registry=registry,
        )
        self.leader = Gauge("berth_leader", "Whether this operator holds the Lease", registry=registry)
        self.requests = Counter(
            "berth_api_requests", "Requests to the API server, by answer", ["method", "code"], registry=registry
        )
        self.silence = Gauge(
            "berth_watch_last_event_age_seconds", "Since a watch was last heard", ["resource"], registry=registry
        )
        for reason in EVICTIONS:
            self.evictions.labels(reason)
        for result in REPARTITIONS:
            self.repartitions.labels(result)
        self._snapshot: Snapshot | None = None  # the last
        self._queues: set[str] = set()  # that exist
        self._admitted: set[tuple[str, int]] = set()
        self._losses: dict[str, Losses] = {}  # of each workload, by uid, as counted
        self._usages: dict[str, Usage] = {}  # the same

    def cycled(self, seconds: float, snapshot: Snapshot, plan: Plan, now: float) -> None:
        """Take in one cycle."""
        self.cycle.observe(seconds)
        self._snapshot, self._queues = snapshot, {*snapshot.queues, *plan.queues}
        self.suspects.set(len(plan.suspects))
        self._count_pending(snapshot, plan, now)
        self._count_unbound(snapshot.workloads)
        self._count_boards(snapshot, plan)
        self._count_losses(snapshot.workloads)
        self._count_usage(snapshot.workloads)
        self._count_unsaved(snapshot, now)
        self._count_idle(snapshot.workloads)
        workloads = {w.ref.uid: w for w in snapshot.workloads}
        for action in plan.actions:
            workload = workloads[action.ref.uid]
            if isinstance(action, Admit) and not workload.attempts_made and self._is_new(action.ref.uid, action.number):
                self.wait.labels(self._queue(workload)).observe(max(0.0, now - workload.created))
            if isinstance(action, Stop) and not _stopping(workload) and self._is_new(action.ref.uid, -action.number):
                self.evictions.labels(action.reason).inc()
        for step in plan.layouts:
            if isinstance(step, EndLayout) and self._is_new(f"{step.node}@{step.relayout.since}", 0):
                self.repartitions.labels(GIVEN_UP if step.trouble else SUCCEEDED).inc()
        if len(self._admitted) > 4 * len(workloads) + 1000:
            self._admitted = {key for key in self._admitted if key[0] in workloads}
        if len(self._losses) > 4 * len(workloads) + 1000:  # whose template is judged anew is left out for a while
            self._losses = {uid: losses for uid, losses in self._losses.items() if uid in workloads}
            self._usages = {uid: usage for uid, usage in self._usages.items() if uid in workloads}

    def saved(self, seconds: float) -> None:
        """A job saved a checkpoint."""
        self.saves.observe(seconds)

    def restored(self, seconds: float) -> None:
        """An attempt went on from a checkpoint."""
        self.restores.observe(seconds)

    def answered(self, method: str, code: str) -> None:
        """The API server answered a request with this status; "none": it did not answer."""
        self.requests.labels(method, code).inc()

    def look(self) -> None:
        """Count the fleet as the last cycle saw it: at each scrape, since cycles are more frequent and have no time."""
        for gauge in (self.gpus, self.instances, self.fragmentation):
            gauge.clear()
        if self._snapshot is None:
            return
        stock = stock_of(self._snapshot)
        for (model, state), boards in stock.boards.items():
            self.gpus.labels(model, state).set(boards)
        for (profile, state), count in stock.instances.items():
            self.instances.labels(profile, state).set(count)
        for model, share in stock.fragmentation.items():
            self.fragmentation.labels(model).set(share)

    def forecast_aged(self, zone: str, seconds: float | None) -> None:
        """The newest forecast of a zone is so old; None: there is none."""
        self.carbon_age.labels(zone).set(inf if seconds is None else seconds)

    def _queue(self, workload: Workload) -> str:
        return workload.queue if workload.queue in self._queues else NO_SUCH_QUEUE

    def _is_new(self, uid: str, number: int) -> bool:
        """Whether an action is seen for the first time; it stays in the plan until its write is answered."""
        new = (uid, number) not in self._admitted
        self._admitted.add((uid, number))
        return new

    def _count_pending(self, snapshot: Snapshot, plan: Plan, now: float) -> None:
        waiting: Tally[tuple[str, str]] = Tally()
        longest = dict.fromkeys(self._queues, 0.0)
        for workload in snapshot.workloads:
            verdict = plan.verdicts.get(workload.ref.uid)
            waits = workload.attempt is None and not workload.finished and workload.ref.kind is Kind.TRAINING_JOB
            if verdict is None or not waits:
                continue
            queue = self._queue(workload)
            waiting[queue, verdict.reason] += 1
            if verdict.reason not in OF_THEIR_OWN and queue in longest:
                since = max(workload.created, workload.usage.until)  # it may have run before
                longest[queue] = max(longest[queue], now - since)
        self.pending.clear()
        for (queue, reason), count in waiting.items():
            self.pending.labels(queue, reason).set(count)
        self.longest.clear()
        for queue, seconds in longest.items():
            self.longest.labels(queue).set(seconds)
            self.wait.labels(queue)

    def _count_unbound(self, workloads: Iterable[Workload]) -> None:
        unbound = dict.fromkeys((*self._queues, NO_SUCH_QUEUE), 0)
        for w in workloads:
            unbound[self._queue(w)] += sum(pod.phase is PodPhase.PINNED and bool(pod.message) for pod in w.pods)
        self.unbound.clear()
        for queue, count in unbound.items():
            self.unbound.labels(queue).set(count)

    def _count_losses(self, workloads: Iterable[Workload]) -> None:
        """Count what statuses tell of losses since the last cycle; what they told at first, another operator counted.

        A status changes once for each attempt, however often the write is tried.
        """
        for w in workloads:
            before = self._losses.get(w.ref.uid, w.losses)
            for loss in w.losses.by_reason if w.losses != before else ():
                more = loss.gpu_seconds - before.of(loss.reason).gpu_seconds
                self.lost.labels(loss.reason).inc(max(0.0, more))
            self._losses[w.ref.uid] = w.losses

    def _count_usage(self, workloads: Iterable[Workload]) -> None:
        """Count what statuses tell of usage since the last cycle, as of losses."""
        for w in workloads:
            before, after = self._usages.get(w.ref.uid, w.usage), w.usage
            if before.until == after.until:
                self._usages[w.ref.uid] = before
                continue
            was = {(one.model, one.capacity): one.amounts for one in before.bought}
            for one in after.bought:
                labels = self._queue(w), one.model, one.capacity.value
                old, new = was.get((one.model, one.capacity), NOTHING), one.amounts
                self.used.labels(*labels).inc(max(0.0, new.gpu_hours - old.gpu_hours) * 3600)
                self.cost.labels(*labels).inc(max(0.0, new.usd - old.usd))
                self.energy.labels(*labels).inc(max(0.0, new.kwh - old.kwh) * 3.6e6)
                self.carbon.labels(*labels).inc(max(0.0, new.kg - old.kg) * 1000)
            self._usages[w.ref.uid] = after

    def _count_unsaved(self, snapshot: Snapshot, now: float) -> None:
        oldest: dict[tuple[str, str], float] = {}
        for w in snapshot.workloads:
            if w.saves and w.started_at and w.attempt is not None and not w.finished:
                nodes = (snapshot.nodes.get(name) for name in w.attempt.placement.nodes)
                labels = self._queue(w), "true" if any(node is not None and node.spot for node in nodes) else "false"
                oldest[labels] = max(oldest.get(labels, 0.0), lost_seconds(w, now))
        self.unsaved.clear()
        for labels, seconds in oldest.items():
            self.unsaved.labels(*labels).set(seconds)

    def _count_idle(self, workloads: Iterable[Workload]) -> None:
        idle = Tally(self._queue(w) for w in workloads if w.idle is not None and w.idle.told and w.attempt is not None)
        self.idle.clear()
        for queue, count in idle.items():
            self.idle.labels(queue).set(count)

    def _count_boards(self, snapshot: Snapshot, plan: Plan) -> None:
        self.boards.clear()
        self.admitted.clear()
        for name, usage in plan.queues.items():
            self.admitted.labels(name).set(usage.admitted)
            states = {"used": usage.used, "borrowed": usage.borrowed, "lent": usage.lent}
            for state, boards in states.items():
                for model, count in boards.items():
                    self.boards.labels(name, model, state).set(float(Fraction(count)))
            queue = snapshot.queues.get(name)
            for model, nominal in (queue.nominal or {}).items() if queue else ():
                self.boards.labels(name, model, "nominal").set(nominal)


def _stopping(workload: Workload) -> bool:
    return workload.attempt is not None and bool(workload.attempt.stopping)
