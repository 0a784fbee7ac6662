"""What workloads use: dollars, energy and carbon, by hand calculation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.model.prices import CapacityType, Owned, Place, Price, PriceBook
from berth.model.usage import NO_USAGE, Usage, week_of
from berth.model.workloads import Device, Kind, Pod, PodPhase, Workload
from berth.planning.metering import Tariff, holds, metered, useful_seconds, without_reruns
from tests.planning.builders import a_job, a_pod, a_service, running

HOUR = 3600.0
NOW = 500_000 * HOUR  # an hour's beginning
SPOT = CapacityType.SPOT
WEST = Place("west", SPOT)
BOOK = PriceBook((Price("H100", 6.0), Price("H100", 2.0, "west", SPOT), Price("H100", 5.0, "west")))
# 8 boards of 700 W, of which 80.5 W when idle, at 80 %; half as much again for the hosts, a fifth for the building
KILOWATTS = 8 * (80.5 + 0.8 * 619.5) * 1.5 * 1.2 / 1000


def tariff(**grams: float) -> Tariff:
    """Intensities by hours from NOW on: `now`, `before1`, `after1`; others are not known."""
    hours = {"now": 0} | {f"before{i}": -i for i in range(1, 9)} | {f"after{i}": i for i in range(1, 9)}
    known = {500_000 + hours[name]: value for name, value in grams.items()}
    return Tariff(BOOK, lambda region, hour: known.get(hour))


def a_run(hours: float = 1.0, **more: object) -> Workload:
    """Two workers with four boards each, admitted so many hours ago."""
    began = NOW - hours * HOUR
    return running(
        a_job(workers=2, gpus=4), "n1", "n2", pods=PodPhase.READY, admitted_at=began, started_at=began, **more
    )


def used(w: Workload, tariff: Tariff, *, place: Place = WEST, now: float = NOW, watts: float | None = None) -> Usage:
    """Its usage from what is written down until then."""
    held = holds(w, lambda node, model: place, lambda node, pod: watts, w.usage.until, now)
    return metered(w.usage, held, tariff, now, w.created if w.ref.kind is Kind.TRAINING_JOB else None)


def test_an_hour_of_a_gang_is_boards_by_price_and_by_intensity() -> None:
    w = replace(a_run(), created=NOW - HOUR)
    found = used(w, tariff(before1=400.0)).total
    assert (found.gpu_hours, found.usd, found.on_demand_usd) == (8.0, 16.0, 40.0)
    assert found.kwh == pytest.approx(KILOWATTS)
    assert found.kg == pytest.approx(KILOWATTS * 0.4)
    assert found.on_demand_kg == pytest.approx(found.kg)
    assert found.unknown_kwh == 0


def test_energy_of_hours_that_nobody_knows_is_told_apart_and_not_guessed() -> None:
    w = replace(a_run(2.0), created=NOW - 2 * HOUR)
    found = used(w, tariff(before1=400.0)).total
    assert found.kg == pytest.approx(KILOWATTS * 0.4)
    assert found.unknown_kwh == pytest.approx(KILOWATTS)
    assert found.on_demand_kg is None


def test_who_waited_for_a_clean_hour_is_compared_with_the_hours_after_its_creation() -> None:
    w = replace(a_run(), created=NOW - 3 * HOUR)
    found = used(w, tariff(before3=500.0, before1=100.0)).total
    assert (found.kg, found.on_demand_kg) == (pytest.approx(KILOWATTS * 0.1), pytest.approx(KILOWATTS * 0.5))


def test_sums_are_the_same_however_often_they_are_written() -> None:
    w = replace(a_run(2.5), created=NOW - 4 * HOUR)
    told = tariff(before4=100.0, before3=200.0, before2=300.0, before1=400.0)
    once, often = used(w, told), w
    for minutes in (7, 31, 60, 61, 90, 149, 150):
        often = replace(often, usage=used(often, told, now=NOW - 2.5 * HOUR + 60 * minutes))
    assert often.usage.until == once.until
    for one, other in ((often.usage.total, once.total), (often.usage.weeks[0][1], once.weeks[0][1])):
        assert (one.usd, one.kwh, one.kg) == tuple(map(pytest.approx, (other.usd, other.kwh, other.kg)))
        assert one.on_demand_kg == pytest.approx(other.on_demand_kg)


def test_what_is_measured_replaces_what_boards_are_taken_to_draw() -> None:
    assert used(a_run(), tariff(), watts=100.0).total.kwh == pytest.approx(8 * 0.1 * 1.5 * 1.2)


def test_clouds_and_owners_say_what_the_building_adds() -> None:
    plain = KILOWATTS / 1.2
    assert used(a_run(), tariff(), place=Place(cloud="gcp")).total.kwh == pytest.approx(plain * 1.1)
    mine = Tariff(PriceBook(owned=(Owned("H100", 30_000, 4, 0.2, pue=1.5),)), lambda region, hour: None)
    assert used(a_run(), mine).total.kwh == pytest.approx(plain * 1.5)


def test_an_instance_is_a_part_of_a_board() -> None:
    device = Device("A100-80GB", "nvidia.com/mig-2g.20gb", 1)
    w = running(a_job(profile="2g.20gb"), "n1", pods=PodPhase.READY, device=device, admitted_at=NOW - HOUR)
    assert used(w, tariff()).total.gpu_hours == 0.25


def test_boards_that_no_table_knows_have_hours_but_no_price() -> None:
    device = Device("RTX-6000", "nvidia.com/gpu", 2)
    w = running(a_job(gpus=2), "n1", pods=PodPhase.READY, device=device, admitted_at=NOW - HOUR)
    found = used(w, tariff()).total
    assert (found.gpu_hours, found.usd, found.kwh) == (2.0, 0.0, 0.0)


def test_a_member_holds_its_boards_until_its_pod_ends() -> None:
    w = a_run()
    ended = replace(w.pods[0], phase=PodPhase.SUCCEEDED, ended_at=NOW - HOUR / 2)
    assert used(replace(w, pods=(ended, w.pods[1])), tariff()).total.gpu_hours == 6.0


def test_a_member_without_a_node_holds_nothing() -> None:
    w = a_run()
    assert w.attempt is not None
    placement = replace(w.attempt.placement, nodes=("n1", ""))
    assert used(replace(w, attempt=replace(w.attempt, placement=placement)), tariff()).total.gpu_hours == 4.0


def test_a_member_that_is_known_to_have_ended_and_whose_pod_is_gone_holds_nothing() -> None:
    w = a_run()
    assert w.attempt is not None
    assert used(replace(w, pods=w.pods[1:], attempt=replace(w.attempt, done=frozenset({0}))), tariff()).total.usd == 8.0


def test_capacity_types_and_weeks_have_sums_of_their_own() -> None:
    monday = 4 * 24 * HOUR + 2900 * 7 * 24 * HOUR
    began = monday - HOUR
    w = running(a_job(gpus=1), "n1", pods=PodPhase.READY, admitted_at=began)
    first = replace(w, usage=used(w, tariff(), now=monday - HOUR / 2))
    found = used(first, tariff(), place=Place("west"), now=monday + HOUR)
    assert [(one.capacity, one.amounts.gpu_hours) for one in found.bought] == [
        (SPOT, 0.5),
        (CapacityType.ON_DEMAND, 1.5),
    ]
    assert [(week, amounts.usd) for week, amounts in found.weeks] == [
        (week_of(monday - 1), 0.5 * 2 + 0.5 * 5),
        (week_of(monday), 5.0),
    ]


def test_weeks_are_kept_for_a_month() -> None:
    w = running(a_job(gpus=1), "n1", pods=PodPhase.READY, admitted_at=NOW - 70 * 24 * HOUR)
    found = used(w, tariff())
    assert len(found.weeks) == 5
    assert found.total.gpu_hours == pytest.approx(70 * 24)
    assert found.weeks[-1][0] == week_of(NOW)


def test_what_is_done_again_is_no_part_of_a_start_on_demand() -> None:
    """Two hours, the first of which is in the checkpoint; the second is done again."""
    w = replace(a_run(2.0, saved_at=NOW - HOUR), created=NOW - 2 * HOUR)
    told = tariff(before2=300.0, before1=400.0, now=100.0)
    held = holds(w, lambda node, model: WEST, lambda node, pod: None, 0.0, NOW)
    after = without_reruns(used(w, told), held, told, "SpotInterruption", useful_seconds(w), w.created)
    assert (after.total.usd, after.total.on_demand_usd) == (32.0, 40.0)
    assert after.total.on_demand_kg == pytest.approx(KILOWATTS * 0.3)
    assert after.ran_seconds == HOUR
    again = running(a_job(workers=2, gpus=4), "n1", "n2", pods=PodPhase.READY, admitted_at=NOW, usage=after)
    end = used(replace(again, created=w.created), told, now=NOW + HOUR)
    assert (end.total.usd, end.total.on_demand_usd) == (48.0, 80.0)
    assert end.total.on_demand_kg == pytest.approx(KILOWATTS * 0.7)
    assert end.total.kg == pytest.approx(KILOWATTS * 0.8)


@pytest.mark.parametrize("reason", ["Restarted", "Hung", "Suspended"])
def test_what_a_program_or_its_user_ends_would_have_ended_on_demand_too(reason: str) -> None:
    w = replace(a_run(), created=NOW - HOUR)
    held = holds(w, lambda node, model: WEST, lambda node, pod: None, 0.0, NOW)
    assert without_reruns(used(w, tariff()), held, tariff(), reason, 0.0, w.created) == used(w, tariff())


def test_a_service_uses_what_its_pods_on_nodes_hold() -> None:
    device = Device("H100-80GB", "nvidia.com/gpu", 2)
    pods: list[Pod] = [
        replace(a_pod(PodPhase.READY, node="n1"), created=NOW - 9 * HOUR, device=device),
        replace(a_pod(PodPhase.BOUND, node="n1"), created=NOW - HOUR / 2, device=device),
        replace(a_pod(PodPhase.GATED, node=""), created=NOW - 9 * HOUR, device=device),
    ]
    w = replace(a_service(), pods=tuple(pods), usage=replace(NO_USAGE, until=NOW - HOUR))
    found = used(w, tariff(before1=100.0))
    assert (found.total.gpu_hours, found.ran_seconds) == (3.0, 0.0)
    assert found.total.on_demand_kg == pytest.approx(found.total.kg)


def test_nothing_is_held_so_nothing_is_used() -> None:
    assert used(a_job(), tariff()) == Usage(until=NOW)
