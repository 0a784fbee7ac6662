"""What arrives, drawn from streams and traces."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest

from berth.api.problems import Misconfigured
from berth.model.workloads import Demand, Kind
from berth.simulation.case import prepare
from berth.simulation.work import Arrival
from tests.simulation.builders import HOUR, a_pool

ONE = [{"gpus": {"count": 1}}]


def arrivals(folder: Path = Path(), *, horizon: Any = "100h", **stream: Any) -> tuple[Arrival, ...]:
    """What one stream brings."""
    fields = {"horizon": horizon, "fleet": {"pools": [a_pool()]}, "streams": [{"name": "s", "mix": ONE, **stream}]}
    return prepare("case", fields, folder).arrivals


def test_a_poisson_process_has_its_rate_and_the_spread_of_chance() -> None:
    times = [a.at for a in arrivals(arrivals={"perHour": 30})]
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) == pytest.approx(3000, rel=0.06)  # three standard deviations of 3,000 are 5.5 %
    assert mean(gap**2 for gap in gaps) == pytest.approx(2 * mean(gaps) ** 2, rel=0.15)


def test_nothing_arrives_outside_the_window() -> None:
    times = [a.at for a in arrivals(arrivals={"perHour": 30, "from": "10h", "until": "20h"})]
    assert 10 * HOUR < min(times) < 11 * HOUR
    assert 19 * HOUR < max(times) <= 20 * HOUR


def test_given_times_are_kept_and_those_beyond_the_horizon_left_out() -> None:
    assert [a.at for a in arrivals(arrivals={"at": [0, "90m", "200h"]})] == [0, 5400]


def test_durations_have_the_distribution_asked_for() -> None:
    def durations(duration: Any) -> list[float]:
        return [a.duration or 0.0 for a in arrivals(arrivals={"perHour": 30}, duration=duration)]

    assert set(durations("2h")) == {2 * HOUR}
    assert mean(durations({"exponential": "2h"})) == pytest.approx(2 * HOUR, rel=0.06)
    assert median(durations({"lognormal": "2h", "sigma": 1.5})) == pytest.approx(2 * HOUR, rel=0.12)


def test_shapes_are_drawn_by_weight() -> None:
    mix = [{"weight": 3, "gpus": {"count": 1}}, {"weight": 1, "gpus": {"count": 8}, "workers": 2}]
    drawn = Counter(a.request.demand.count for a in arrivals(arrivals={"perHour": 30}, mix=mix))
    assert drawn[1] / drawn[8] == pytest.approx(3, rel=0.15)


def test_a_trace_gives_times_durations_and_shapes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "at,duration,workers,replicas,count,profile,memory,models,priority\n"
        "0,60,,,,,,,\n"
        "1h,2h,4,,8,,,,5\n"
        "90.5,,,3,,1g.10gb,,,\n"
        "2h,,,,,,18Gi,A100 H100,\n"
    )
    plain, service, gang, open_one = arrivals(tmp_path, arrivals={"trace": "t.csv"}, duration="9h")
    assert (plain.at, plain.duration, plain.request.demand) == (0, 60, Demand(count=1))
    assert (service.at, service.duration, service.kind) == (90.5, 9 * HOUR, Kind.INFERENCE_SERVICE)
    assert (service.request.workers, service.request.demand) == (3, Demand(profile="1g.10gb"))
    assert (gang.at, gang.request.workers, gang.request.demand, gang.priority) == (HOUR, 4, Demand(count=8), 5)
    assert open_one.request.demand == Demand(memory_bytes=18 * 2**30, models=("A100", "H100"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when\n1", "t.csv has a column 'when': use some of at, duration"),
        ("duration\n1", "t.csv lacks the column `at`"),
        ("at\nsoon", "line 2: at: must be seconds"),
        ("at,count\n1,1\n2,x", "line 3: count: must be a whole number, got 'x'"),
        ("at,workers\n1,0", "line 2: workers: must be greater than or equal to 1"),
        ("at,models\n1,H1000", 'gpus.models[0]: unknown GPU model "H1000"'),
    ],
)
def test_a_bad_trace_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(Misconfigured) as caught:
        arrivals(tmp_path, arrivals={"trace": "t.csv"})
    assert message in str(caught.value)
    assert caught.value.field.startswith("streams[0].arrivals.trace")
