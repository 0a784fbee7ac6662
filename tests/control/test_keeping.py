"""What was seen of failures outlives the operator."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.control.keeping import CONFIG_MAP, KEY, MOST_POOLS, Keeper, from_text, to_text
from berth.control.picture import Picture
from berth.control.ports import CONFIG_MAPS, Unavailable
from berth.control.rates import Pool, Rates
from berth.planning.interval import AGES, HOUR, SPOT, Hazard
from tests.control.builders import a_node_record
from tests.control.fakes import FakeApi, HandClock

POOL: Pool = (True, "", "")
AMOUNTS = st.tuples(*[st.floats(0, 1e9)] * len(AGES))


class Fleet:
    """Two spot nodes, and the operator of the moment."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.api = FakeApi(self.clock)
        self.picture = Picture()
        for name in ("n1", "n2"):
            self.picture.nodes.put(a_node_record(name, labels={"karpenter.sh/capacity-type": "spot"}))
        self.put("")
        self.begin()

    def begin(self) -> None:
        """Another operator."""
        self.rates = Rates(self.picture, self.clock)
        self.keeper = Keeper(self.rates, self.api, "berth-system", self.clock)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, looking on the way."""
        self.rates.look()
        self.clock.advance(seconds)
        self.rates.look()

    @property
    def kept(self) -> str:
        """What is in the ConfigMap."""
        found = self.api.find(CONFIG_MAPS, CONFIG_MAP, "berth-system")
        assert found is not None
        return str(found["data"][KEY])

    def put(self, text: str) -> None:
        """Somebody writes that into the ConfigMap."""
        self.api.objects.pop((CONFIG_MAPS, "berth-system", CONFIG_MAP), None)
        self.api.put(CONFIG_MAPS, {"metadata": {"name": CONFIG_MAP, "namespace": "berth-system"}, "data": {KEY: text}})


async def test_the_next_operator_knows_what_the_one_before_saw_and_nothing_twice() -> None:
    fleet = Fleet()
    assert await fleet.keeper.recall()
    fleet.pass_time(3 * HOUR)
    fleet.picture.nodes.drop("", "n1")
    fleet.pass_time(HOUR)
    before = fleet.rates.evidence()[POOL]
    assert sum(before.failures) == 1
    await fleet.keeper.keep()
    fleet.begin()
    assert await fleet.keeper.recall()
    fleet.rates.look()
    assert fleet.rates.evidence()[POOL] == before
    fleet.pass_time(HOUR)
    assert sum(fleet.rates.evidence()[POOL].seconds) == pytest.approx(sum(before.seconds) + HOUR)


async def test_the_same_is_not_written_twice() -> None:
    fleet = Fleet()
    await fleet.keeper.keep()
    await fleet.keeper.keep()
    assert fleet.api.said() == [f"merge configmaps {CONFIG_MAP}"]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", "7", '{"ages": [0], "pools": []}']
    + [
        json.dumps({"ages": AGES, "pools": pools})
        for pools in ([7], {}, [{"spot": 1}], [{"spot": 1, "zone": "", "product": "", "failures": [], "seconds": []}])
    ]
    + [
        to_text({POOL: Hazard(SPOT, (-1.0, 0.0, 0.0, 0.0))}),
        to_text({POOL: Hazard(SPOT, (float("inf"), 0.0, 0.0, 0.0))}),
    ],
)
async def test_what_somebody_else_wrote_is_left_out_with_a_word_and_replaced(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet()
    fleet.put(text)
    with caplog.at_level(logging.WARNING):
        assert await fleet.keeper.recall()
    assert "not as Berth wrote it" in caplog.text
    fleet.pass_time(HOUR)
    assert fleet.rates.evidence()[POOL].failures == (0.0,) * len(AGES)
    await fleet.keeper.keep()
    assert from_text(fleet.kept)


async def test_what_can_t_be_read_is_not_written_over() -> None:
    fleet = Fleet()
    fleet.api.fail("get configmaps", Unavailable("overload"))
    running = asyncio.create_task(fleet.keeper.run())
    for _ in range(10):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert fleet.api.said() == []


async def test_it_is_written_when_the_operator_leaves() -> None:
    fleet = Fleet()
    running = asyncio.create_task(fleet.keeper.run())
    for _ in range(10):
        await asyncio.sleep(0)
    fleet.pass_time(HOUR)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sum(from_text(fleet.kept)[POOL][1]) == pytest.approx(2 * HOUR)


async def test_that_it_can_t_be_written_stops_nothing() -> None:
    fleet = Fleet()
    fleet.api.fail("merge configmaps", Unavailable("overload"))
    await fleet.keeper.keep()
    await fleet.keeper.keep()
    assert from_text(fleet.kept)


async def test_a_config_map_that_is_gone_with_its_chart_is_not_made_again() -> None:
    fleet = Fleet()
    fleet.api.remove(CONFIG_MAPS, "berth-system", CONFIG_MAP)
    assert await fleet.keeper.recall()
    await fleet.keeper.keep()
    assert fleet.api.find(CONFIG_MAPS, CONFIG_MAP, "berth-system") is None


@given(st.dictionaries(st.tuples(st.booleans(), st.text(), st.text()), st.tuples(AMOUNTS, AMOUNTS), max_size=5))
def test_what_is_written_is_read_back(seen: dict[Pool, tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    found = from_text(to_text({pool: Hazard(SPOT, *amounts) for pool, amounts in seen.items()}))
    assert found.keys() == seen.keys()
    for pool, (failures, seconds) in seen.items():
        assert found[pool][0] == failures
        assert found[pool][1] == pytest.approx(seconds, abs=0.1)


def test_the_pools_that_were_seen_longest_are_kept() -> None:
    many = {(True, f"z{i}", "p"): Hazard(SPOT, seconds=(float(i), 0.0, 0.0, 0.0)) for i in range(3 * MOST_POOLS)}
    text = to_text(many)
    assert len(text) < 40_000
    assert set(from_text(text)) == {(True, f"z{i}", "p") for i in range(2 * MOST_POOLS, 3 * MOST_POOLS)}
