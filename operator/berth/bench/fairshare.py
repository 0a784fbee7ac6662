"""A saturated week of queues with unequal weights, jobs and run times: what part of the board-hours each gets.

Each queue is offered more work than its share, always. Jobs differ in size and length from queue to queue, since that
is what makes sharing hard: whoever asks for little would else take every board that falls free.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.simulation.case import prepare
from berth.simulation.run import simulate

OFFERED = 1.15  # times its share, as work per queue: so none ever lacks any
BACKLOG = 24  # jobs of each queue that are there from the start, since more come by chance
PLAN_SECONDS = 30  # changes within so long share a plan: there are a hundred thousand in a week of short jobs
LIMIT = 0.02  # of its share, by which a queue may miss it


@dataclass(frozen=True, slots=True)
class Team:
    """One queue and its work."""

    weight: int
    shapes: tuple[tuple[int, int], ...]  # workers and boards each; as likely as one another
    hours: float  # mean run time; exponential


STUDIES: dict[str, tuple[Team, ...]] = {
    "unlike in all": (
        Team(1, ((1, 1), (1, 2)), 2.0),
        Team(2, ((1, 4),), 4.0),
        Team(3, ((1, 1), (1, 8), (2, 8)), 6.0),
        Team(4, ((1, 2), (2, 4)), 1.0),
    ),
    "large and long against small and short": (
        Team(1, ((1, 8), (2, 8)), 8.0),
        Team(2, ((1, 8),), 4.0),
        Team(3, ((1, 1),), 2.0),
        Team(4, ((1, 1), (1, 2)), 0.5),
    ),
    "alike": tuple(Team(weight, ((1, 1), (1, 4), (1, 8)), 3.0) for weight in (1, 2, 3, 4)),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the queues of a study got."""

    parts: dict[str, float]  # of all board-hours
    due: dict[str, float]
    utilisation: float  # of all boards

    @property
    def worst(self) -> float:
        """The largest part of its share by which a queue missed it."""
        return max(abs(self.parts[name] / due - 1) for name, due in self.due.items())


def run(teams: tuple[Team, ...], *, nodes: int, days: float, seed: int = 0) -> Outcome:
    """Simulate the teams on nodes of eight boards."""
    case = prepare("fairshare", scenario(teams, nodes, days, seed), Path())
    summary = simulate(case).summary
    weights = sum(team.weight for team in teams)
    parts = {name: told["part"] or 0.0 for name, told in summary["queues"].items()}
    due = {f"q{i}": team.weight / weights for i, team in enumerate(teams)}
    return Outcome(parts, due, summary["utilisation"]["all"] or 0.0)


def scenario(teams: tuple[Team, ...], nodes: int, days: float, seed: int) -> dict[str, Any]:
    """The fields of a scenario in which every queue has work all the time."""
    weights = sum(team.weight for team in teams)
    return {
        "horizon": days * 86400,
        "seed": seed,
        "policy": {"cycleDebounceSeconds": PLAN_SECONDS},
        "fleet": {"pools": [{"name": "dgx", "model": "H100-80GB", "nodes": nodes}]},
        "queues": [{"name": f"q{i}", "weight": team.weight} for i, team in enumerate(teams)],
        "streams": [
            stream
            for i, team in enumerate(teams)
            for stream in _streams(f"q{i}", team, 8 * nodes * team.weight / weights)
        ],
    }


def _streams(queue: str, team: Team, boards: float) -> Iterator[dict[str, Any]]:
    """A backlog, and what comes as time goes by."""
    size = sum(workers * count for workers, count in team.shapes) / len(team.shapes)
    per_hour = OFFERED * boards / (size * team.hours)
    mix = [{"workers": n, "gpus": {"count": count}, "queueName": queue} for n, count in team.shapes]
    duration = {"exponential": f"{round(team.hours * 3600)}s"}
    first = {"perHour": BACKLOG * 60, "until": "1m"}
    yield {"name": f"{queue}-first", "arrivals": first, "duration": duration, "mix": mix}
    yield {"name": queue, "arrivals": {"perHour": per_hour}, "duration": duration, "mix": mix}


def main(nodes: int = 32, days: float = 7.0) -> int:
    """Print what each queue got; the exit status, 1 where one missed its share by more than the limit."""
    missed = False
    for name, teams in STUDIES.items():
        got = run(teams, nodes=nodes, days=days)
        missed = missed or got.worst > LIMIT
        shown = ", ".join(f"{got.parts[q]:.4f} of {due:.2f}" for q, due in got.due.items())
        print(f"{name}: {shown}; at worst {got.worst:.2%} off; {got.utilisation:.1%} of {8 * nodes} boards held")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
