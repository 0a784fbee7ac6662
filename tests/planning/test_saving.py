"""A gang that a person asks to save does so once, and goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth.model.nodes import Interruption
from berth.model.workloads import CHECKPOINT_REQUESTED, SaveRequest, Workload
from berth.planning.actions import AskToSave
from tests.planning.builders import NOW, a_node, only, verdict_of
from tests.planning.test_interruptions import a_gang, plan_for

NODES = [a_node("n1"), a_node("n2")]
WANTED, SEEN = NOW + 30, NOW + 40


def asked_of(gang: Workload, now: float = SEEN) -> list[AskToSave]:
    return only(plan_for(NODES, gang, now=now), AskToSave)


def test_the_members_are_asked_and_nobody_is_stopped() -> None:
    plan = plan_for(NODES, a_gang("n1", "n2", save_wanted_at=WANTED), now=SEEN)
    (asked,) = plan.actions
    assert isinstance(asked, AskToSave)
    assert (asked.request.reason, asked.request.attempt, asked.request.at) == (CHECKPOINT_REQUESTED, 1, SEEN)
    assert asked.request.goes_on
    assert verdict_of(plan).reason == "Placed"


def test_it_is_asked_once_whether_it_has_saved_or_not() -> None:
    gang = a_gang("n1", save_wanted_at=WANTED)
    (asked,) = asked_of(gang)
    again = replace(gang, save_request=asked.request)
    assert not plan_for(NODES, again, now=NOW + 600).actions
    assert not plan_for(NODES, replace(again, saved_for=asked.request.id), now=NOW + 600).actions


def test_a_second_wish_is_another_request() -> None:
    gang = a_gang("n1", save_wanted_at=WANTED)
    (first,) = asked_of(gang)
    (second,) = asked_of(replace(gang, save_request=first.request, save_wanted_at=NOW + 60), now=NOW + 61)
    assert second.request.id != first.request.id


def test_a_clock_that_is_ahead_asks_at_once_and_once() -> None:
    gang = a_gang("n1", save_wanted_at=NOW + 3600)
    (asked,) = asked_of(gang)
    assert not asked_of(replace(gang, save_request=asked.request), now=NOW + 7200)


def test_a_later_request_for_another_reason_serves_as_well() -> None:
    drained = SaveRequest("1-7", 1, "Drain", "n1", WANTED + 1)
    assert not asked_of(a_gang("n1", save_wanted_at=WANTED, save_request=drained))


@pytest.mark.parametrize(
    "more", [{"listens": False}, {"save_wanted_at": NOW - 5}], ids=["nobody listens", "of an earlier attempt"]
)
def test_nobody_is_asked(more: dict[str, Any]) -> None:
    assert not asked_of(a_gang("n1", **{"save_wanted_at": WANTED, **more}))


def test_what_threatens_the_gang_comes_first() -> None:
    going = a_node("n1", interruption=Interruption("SpotInterruption", "EC2 instance metadata", NOW + 120))
    (asked,) = only(plan_for([going], a_gang("n1", save_wanted_at=WANTED), now=SEEN), AskToSave)
    assert asked.request.reason == "SpotInterruption"
