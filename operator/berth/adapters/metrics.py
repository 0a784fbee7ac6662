"""The operator's own metrics, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from fractions import Fraction

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from berth.model.losses import Losses
from berth.model.usage import NOTHING, Usage
from berth.model.workloads import Kind, Workload
from berth.planning.actions import Admit, EndLayout, Plan, Stop
from berth.planning.lost import lost_seconds
from berth.planning.snapshot import Snapshot

CYCLE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAIT_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
SAVE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


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
            ["queue"],
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
        self.prices_age = Gauge(
            "berth_prices_age_seconds", "Since a source of live prices last told them", registry=registry
        )
        self.silence = Gauge(
            "berth_watch_last_event_age_seconds", "Since a watch was last heard", ["resource"], registry=registry
        )
        self._admitted: set[tuple[str, int]] = set()
        self._losses: dict[str, Losses] = {}  # of each workload, by uid, as counted
        self._usages: dict[str, Usage] = {}  # the same

    def cycled(self, seconds: float, snapshot: Snapshot, plan: Plan, now: float) -> None:
        """Take in one cycle."""
        self.cycle.observe(seconds)
        self._count_pending(snapshot, plan)
        self._count_boards(snapshot, plan)
        self._count_losses(snapshot.workloads)
        self._count_usage(snapshot.workloads)
        self._count_unsaved(snapshot.workloads, now)
        self._count_idle(snapshot.workloads)
        workloads = {w.ref.uid: w for w in snapshot.workloads}
        for action in plan.actions:
            workload = workloads[action.ref.uid]
            if isinstance(action, Admit) and not workload.attempts_made and self._is_new(action.ref.uid, action.number):
                self.wait.labels(workload.queue).observe(max(0.0, now - workload.created))
            if isinstance(action, Stop) and not _stopping(workload) and self._is_new(action.ref.uid, -action.number):
                self.evictions.labels(action.reason).inc()
        for step in plan.layouts:
            if isinstance(step, EndLayout) and self._is_new(f"{step.node}@{step.relayout.since}", 0):
                self.repartitions.labels("given up" if step.trouble else "succeeded").inc()
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

    def _is_new(self, uid: str, number: int) -> bool:
        """Whether an action is seen for the first time; it stays in the plan until its write is answered."""
        new = (uid, number) not in self._admitted
        self._admitted.add((uid, number))
        return new

    def _count_pending(self, snapshot: Snapshot, plan: Plan) -> None:
        waiting: Tally[tuple[str, str]] = Tally()
        for workload in snapshot.workloads:
            verdict = plan.verdicts.get(workload.ref.uid)
            waits = workload.attempt is None and not workload.finished and workload.ref.kind is Kind.TRAINING_JOB
            if verdict is not None and waits:
                waiting[workload.queue, verdict.reason] += 1
        self.pending.clear()
        for (queue, reason), count in waiting.items():
            self.pending.labels(queue, reason).set(count)

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
                labels = w.queue, one.model, one.capacity.value
                old, new = was.get((one.model, one.capacity), NOTHING), one.amounts
                self.used.labels(*labels).inc(max(0.0, new.gpu_hours - old.gpu_hours) * 3600)
                self.cost.labels(*labels).inc(max(0.0, new.usd - old.usd))
                self.energy.labels(*labels).inc(max(0.0, new.kwh - old.kwh) * 3.6e6)
                self.carbon.labels(*labels).inc(max(0.0, new.kg - old.kg) * 1000)
            self._usages[w.ref.uid] = after

    def _count_unsaved(self, workloads: Iterable[Workload], now: float) -> None:
        oldest: dict[str, float] = {}
        for w in workloads:
            if w.saves and w.started_at and w.attempt is not None and not w.finished:
                oldest[w.queue] = max(oldest.get(w.queue, 0.0), lost_seconds(w, now))
        self.unsaved.clear()
        for queue, seconds in oldest.items():
            self.unsaved.labels(queue).set(seconds)

    def _count_idle(self, workloads: Iterable[Workload]) -> None:
        idle = Tally(w.queue for w in workloads if w.idle is not None and w.idle.told and w.attempt is not None)
        self.idle.clear()
        for queue, count in idle.items():
            self.idle.labels(queue).set(count)

    def _count_boards(self, snapshot: Snapshot, plan: Plan) -> None:
        self.boards.clear()
        for name, usage in plan.queues.items():
            states = {"used": usage.used, "borrowed": usage.borrowed, "lent": usage.lent}
            for state, boards in states.items():
                for model, count in boards.items():
                    self.boards.labels(name, model, state).set(float(Fraction(count)))
            queue = snapshot.queues.get(name)
            for model, nominal in (queue.nominal or {}).items() if queue else ():
                self.boards.labels(name, model, "nominal").set(nominal)


def _stopping(workload: Workload) -> bool:
    return workload.attempt is not None and bool(workload.attempt.stopping)
