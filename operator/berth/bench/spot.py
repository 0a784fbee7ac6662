"""`berth bench spot`: jobs with a deadline on recorded spot windows, each in its own pool, under us and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from berth.bench.spot_bound import clairvoyant
from berth.bench.spot_data import Window
from berth.bench.spot_policies import Berth, Greedy, Naive, OnDemandNow, UniformProgress, WaitAwhile
from berth.bench.spot_run import Chooser, Outcome, Terms, Track, run

Policy = Callable[[Terms, Track], Outcome]


@dataclass(frozen=True, slots=True)
class Figures:
    """What several runs of a policy are reported by."""

    mean_dollars: float
    mean_kg: float
    mean_wait_hours: float
    missed_deadlines: int
    restarts: float  # in the mean

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Figures:
        """Of these runs."""
        return cls(
            fmean(outcome.dollars for outcome in outcomes),
            fmean(outcome.kilograms for outcome in outcomes),
            fmean(outcome.wait_hours for outcome in outcomes),
            sum(outcome.missed for outcome in outcomes),
            fmean(outcome.restarts for outcome in outcomes),
        )


def _chosen(chooser: Callable[[Terms, Track], Chooser]) -> Policy:
    return lambda terms, track: run(terms, track, chooser(terms, track))


SPOT_POLICIES: Mapping[str, Policy] = {
    "on_demand_now": _chosen(OnDemandNow),
    "greedy": _chosen(Greedy),
    "uniform_progress": _chosen(UniformProgress),
    "berth": _chosen(Berth),
    "clairvoyant": clairvoyant,
}
JOINT_POLICIES: Mapping[str, Policy] = {
    **{name: policy for name, policy in SPOT_POLICIES.items() if name not in ("berth", "clairvoyant")},
    "wait_awhile": _chosen(WaitAwhile),
    "naive": _chosen(Naive),
    "berth": _chosen(Berth),
    "clairvoyant": clairvoyant,
}


def tracks(windows: Iterable[Window]) -> list[Track]:
    """Each window as a job that stays in its pool meets it."""
    return [
        Track(window.pool, window.gap_hours, looks, np.zeros_like(looks, dtype=np.float64))
        for window in windows
        for looks in [np.array([window.available], dtype=np.bool_)]
    ]


def outcomes(terms: Terms, todo: Sequence[Track], policies: Mapping[str, Policy]) -> Iterator[tuple[str, str, Outcome]]:
    """Track by track: its name, and each policy with what came of it."""
    for track in todo:
        for name, policy in policies.items():
            yield track.name, name, policy(terms, track)


def figures(found: Iterable[tuple[str, str, Outcome]]) -> dict[str, dict[str, Figures]]:
    """By pool and policy; under the name "" those over all."""
    grouped: dict[str, dict[str, list[Outcome]]] = {"": {}}
    for pool, policy, outcome in found:
        for group in ("", pool):
            grouped.setdefault(group, {}).setdefault(policy, []).append(outcome)
    return {pool: {name: Figures.of(runs) for name, runs in named.items()} for pool, named in grouped.items()}
