"""A run: the operator's cycle on a virtual cluster, from the first event to the horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from berth.model.carbon import HOUR_SECONDS
from berth.planning.actions import Plan
from berth.planning.plan import plan
from berth.planning.snapshot import Policy
from berth.simulation.case import Case
from berth.simulation.clock import Clock
from berth.simulation.cluster import Cluster
from berth.simulation.machines import EPOCH, machines_of
from berth.simulation.metrics import Meter, Result

SHORTEST_WAIT = 0.05  # seconds; the operator waits no less for a moment that its plan named

Watch = Callable[[Cluster], None]


@dataclass
class Operator:
    """Plans whenever the cluster changed, as the operator's cycle does: debounced, and again when time is due."""

    cluster: Cluster
    policy: Policy
    debounce_seconds: float
    cycles: int = 0
    last: Plan = field(default_factory=Plan)
    _due: bool = False

    def wake(self) -> None:
        """Something changed."""
        if not self._due:
            self._due = True
            self.cluster.clock.after(self.debounce_seconds, self._cycle)

    def _cycle(self) -> None:
        self._due = False
        self.cycles += 1
        clock = self.cluster.clock
        self.last = plan(self.cluster.snapshot(), self.policy, EPOCH + clock.now)
        for error in self.last.faults.values():
            raise error
        self.cluster.carry_out(self.last)
        self.cluster.remember(self.last)
        if self.last.wake_at is not None:
            at = max(self.last.wake_at - EPOCH, clock.now + SHORTEST_WAIT)
            clock.at(at, partial(self._time_is_due, self.cycles))

    def _time_is_due(self, cycle: int) -> None:
        if cycle == self.cycles:
            self.wake()


def _schedule_spot(cluster: Cluster, case: Case) -> None:
    """All nodes of a pool are warned of and taken back when its capacity goes."""
    for pool in case.scenario.fleet.pools:
        for at, seconds in case.away.get(pool.name, ()):
            for node in pool.node_names():
                if at > 0 and pool.spot:
                    cluster.clock.at(max(0.0, at - pool.spot.notice), partial(cluster.warn, node, at))
                cluster.clock.at(at, partial(cluster.withdraw, node, seconds))


def simulate(case: Case, watch: Watch = lambda cluster: None, policy: Policy | None = None) -> Result:
    """Run a case to its horizon. `watch` is shown the cluster after every event.

    `policy` takes the place of the scenario's own: comparisons have rules that no configuration can state.
    """
    scenario = case.scenario
    clock = Clock()
    cluster = Cluster(clock, machines_of(scenario), scenario.delays, scenario.planner_queues(), case.sky)
    operator = Operator(cluster, policy or scenario.planner_policy(), scenario.config.cycle_debounce_seconds)
    cluster.wake = operator.wake
    _schedule_spot(cluster, case)
    for hour in range(1, int(scenario.horizon // HOUR_SECONDS) + 1 if case.sky else 0):
        clock.at(hour * HOUR_SECONDS, operator.wake)  # another forecast
    for arrival in case.arrivals:
        clock.at(arrival.at, partial(cluster.arrive, arrival))
    for failure in scenario.failures:
        clock.at(failure.at, partial(cluster.fail, failure))
    meter = Meter(cluster, case)
    while clock.next_at is not None and clock.next_at <= scenario.horizon:
        meter.advance(clock.next_at)
        clock.step()
        watch(cluster)
    meter.advance(scenario.horizon)
    clock.now = scenario.horizon
    cluster.settle()
    return meter.result(operator.cycles, operator.last.verdicts)
