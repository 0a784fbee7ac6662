"""The desk behind the progress endpoint: who may speak, what is written when, and who hears of a save request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import pytest

from berth.control.picture import Picture
from berth.control.ports import TRAINING_JOBS, Json, NotFound, Unavailable
from berth.control.progress import Caller, Desk, Report, Saved, Stranger, Superseded
from berth.control.records import ATTEMPT_LABEL, NAME_LABEL
from berth.control.status import to_rfc3339
from berth.model.failures import Pace
from tests.control.builders import a_pod_record, a_training_job
from tests.control.fakes import FakeApi, HandClock

CALLER = Caller("team", "llm-3-0", "uid-llm-3-0")
RUNNING = {"attempt": 3, "placement": {"device": {}}}
SAVED = Saved(step=120, time=1_000_000.0, bytes=10, seconds=2.5)


class Times:
    """Saves and restores as they are measured."""

    def __init__(self) -> None:
        self.saves: list[float] = []
        self.restores: list[float] = []

    def saved(self, seconds: float) -> None:
        """A save took so long."""
        self.saves.append(seconds)

    def restored(self, seconds: float) -> None:
        """A restore took so long."""
        self.restores.append(seconds)


class Office:
    """A desk for the job "llm", whose attempt 3 runs."""

    def __init__(self, status: Json | None = None) -> None:
        self.clock = HandClock()
        self.api = FakeApi(self.clock)
        self.picture = Picture()
        raw = self.api.put(TRAINING_JOBS, {**a_training_job(), "status": status or RUNNING})
        self.uid = raw["metadata"]["uid"]
        self.picture.record(TRAINING_JOBS, raw)
        self.times = Times()
        self.desk = Desk(self.picture, self.api, self.clock, measures=self.times)
        for attempt in (2, 3):
            self.add_pod(f"llm-{attempt}-0", attempt)

    def add_pod(self, name: str, attempt: int, **more: Any) -> None:
        """A pod of an attempt."""
        more.setdefault("controller", f"Job/llm-{attempt}")
        labels = {NAME_LABEL: "llm", ATTEMPT_LABEL: str(attempt)}
        self.picture.pods.put(a_pod_record(name, owner=self.uid, labels=labels, phase="Running", **more))

    @property
    def status(self) -> Json:
        """The job's status as the API server has it."""
        return dict(self.raw["status"])

    def ask(self, reason: str, deadline: str | None = None, id: str = "3-1") -> str:
        """The plan has the members of attempt 3 asked to save; the id of the request."""
        asked = {"id": id, "attempt": 3, "reason": reason, "node": "n1", "time": "1970-01-12T13:46:40Z"}
        status = {"saveRequest": {**asked, "deadline": deadline}}
        self.picture.record(TRAINING_JOBS, self.api.edit(TRAINING_JOBS, "team", "llm", status=status))
        self.desk.ask_now(self.uid)
        return id

    @property
    def raw(self) -> Json:
        """The job as the API server has it."""
        raw = self.api.find(TRAINING_JOBS, "llm")
        assert raw is not None
        return dict(raw)

    async def written(self) -> Json:
        """The status after the writes that are due."""
        writing = asyncio.create_task(self.desk.run())
        for _ in range(10):
            await asyncio.sleep(0)
        writing.cancel()
        return self.status


async def test_progress_reaches_the_status() -> None:
    office = Office()
    office.desk.take(CALLER, "llm", Report(step=450, total=1000, percent=45, remaining_seconds=120))
    assert (await office.written())["progress"] == {
        "step": 450,
        "totalSteps": 1000,
        "percent": 45,
        "summary": "45%",
        "estimatedEnd": "1970-01-12T13:48:40Z",
        "time": "1970-01-12T13:46:40Z",
        "attempt": 3,
        "advancedAt": "1970-01-12T13:46:40Z",
    }


async def test_a_percentage_follows_from_steps() -> None:
    office = Office()
    office.desk.take(CALLER, "llm", Report(step=1, total=3))
    assert (await office.written())["progress"]["percent"] == 33


async def test_progress_is_written_every_thirty_seconds_at_most_and_the_newest() -> None:
    office = Office()
    for step in range(1, 62):
        office.desk.take(CALLER, "llm", Report(step=step))
        await office.written()
        office.clock.advance(1)
    assert office.status["progress"]["step"] == 61
    assert office.api.said("merge") == ["merge trainingjobs/status llm"] * 3


async def test_a_durable_checkpoint_is_written_at_once() -> None:
    office = Office()
    office.desk.take(CALLER, "llm", Report(step=119))
    await office.written()
    office.desk.take(CALLER, "llm", Report(step=120, checkpoint=SAVED))
    expected = {"attempt": 3, "step": 120, "time": "1970-01-12T13:46:40Z", "bytes": 10, "seconds": 2.5}
    assert (await office.written())["checkpoint"] == expected


async def test_a_save_that_failed_is_told_until_one_succeeds() -> None:
    office = Office()
    office.desk.take(CALLER, "llm", Report(problem="No space left on device"))
    assert (await office.written())["checkpointProblem"] == "No space left on device"
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED))
    assert (await office.written()).get("checkpointProblem") is None


async def test_a_write_that_failed_is_made_again_and_what_came_meanwhile_wins() -> None:
    office = Office()
    office.api.fail("merge trainingjobs/status", Unavailable("overload"))
    office.desk.take(CALLER, "llm", Report(step=1, checkpoint=SAVED))
    await office.written()
    office.desk.take(CALLER, "llm", Report(step=2))
    office.clock.advance(5)
    status = await office.written()
    assert status["progress"]["step"] == 2
    assert status["checkpoint"]["step"] == 120


async def test_a_job_that_is_gone_is_forgotten() -> None:
    office = Office()
    office.api.fail("merge trainingjobs/status", NotFound("gone"))
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED))
    await office.written()
    assert office.desk.saved(office.uid) is None


STRANGERS: dict[str, Callable[[Office], tuple[Caller, str]]] = {
    "a pod that nobody has seen": lambda office: (Caller("team", "other", "uid-other"), "llm"),
    "a pod of the same name made later": lambda office: (Caller("team", "llm-3-0", "uid-new"), "llm"),
    "a member of another job": lambda office: (CALLER, "other"),
    "a pod of another namespace": lambda office: (Caller("elsewhere", "llm-3-0", "uid-llm-3-0"), "llm"),
    "a pod with the labels that no Job made": lambda office: (
        office.add_pod("fake", 3, controller=""),
        (Caller("team", "fake", "uid-fake"), "llm"),
    )[1],
    "a pod with the labels that another Job made": lambda office: (
        office.add_pod("fake", 3, controller="Job/mine"),
        (Caller("team", "fake", "uid-fake"), "llm"),
    )[1],
}


@pytest.mark.parametrize("who", STRANGERS, ids=lambda who: who.replace(" ", "-"))
async def test_no_stranger_may_report_or_ask(who: str) -> None:
    office = Office()
    caller, name = STRANGERS[who](office)
    with pytest.raises(Stranger, match=r"no member of|belongs to no"):
        office.desk.take(caller, name, Report(checkpoint=SAVED))
    with pytest.raises(Stranger):
        await office.desk.next_request(caller, name, "", 0)


@pytest.mark.parametrize("status", [RUNNING, {"attempt": 3}, RUNNING | {"finishedAt": "2026-01-01T00:00:00Z"}])
async def test_what_an_attempt_that_is_over_saves_does_not_count(status: Json) -> None:
    office = Office(status)
    old = Caller("team", "llm-2-0", "uid-llm-2-0")
    with pytest.raises(Superseded, match="attempt 2 of llm is over"):
        office.desk.take(old, "llm", Report(checkpoint=SAVED))
    assert "checkpoint" not in await office.written()


async def until_asked(office: Office) -> None:
    """Return once a poll waits."""
    while not office.desk._jobs[office.uid].waiters:
        await asyncio.sleep(0)


async def test_all_who_poll_hear_of_a_request_at_once() -> None:
    office = Office()
    office.add_pod("llm-3-1", 3)
    callers = (CALLER, Caller("team", "llm-3-1", "uid-llm-3-1"))
    polls = [asyncio.create_task(office.desk.next_request(c, "llm", "", 60)) for c in callers]
    await asyncio.sleep(0)
    request = office.ask("SpotInterruption", deadline="1970-01-12T13:48:40Z")
    async with asyncio.timeout(1):
        answers = await asyncio.gather(*polls)
    expected = {"id": request, "reason": "SpotInterruption", "deadline": "1970-01-12T13:48:40Z"}
    assert answers == [{"saveRequest": expected}] * 2


async def test_who_polls_later_hears_of_it_too_and_only_once() -> None:
    office = Office()
    request = office.ask("Drain")
    first = await office.desk.next_request(CALLER, "llm", "", 60)
    assert first == {"saveRequest": {"id": request, "reason": "Drain"}}
    assert await office.desk.next_request(CALLER, "llm", request, 0) == {}


async def test_a_report_hears_of_it_too() -> None:
    office = Office()
    request = office.ask("Drain")
    assert office.desk.take(CALLER, "llm", Report(step=1))["saveRequest"]["id"] == request


async def test_a_request_is_over_once_it_led_to_a_checkpoint() -> None:
    office = Office()
    request = office.ask("Drain")
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED))
    told = await office.desk.next_request(CALLER, "llm", "", 0)
    assert told["saveRequest"]["id"] == request, "that checkpoint had been under way already"
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED, answers=request))
    assert office.desk.saved(office.uid) == SAVED
    assert await office.desk.next_request(CALLER, "llm", "", 0) == {}
    assert (await office.written())["checkpoint"]["answers"] == request


async def test_a_desk_that_was_made_anew_asks_on_until_there_is_an_answer() -> None:
    office = Office()
    request = office.ask("Drain")
    office.desk = Desk(office.picture, office.api, office.clock)
    assert (await office.desk.next_request(CALLER, "llm", "", 60))["saveRequest"]["id"] == request
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED, answers=request))
    await office.written()
    office.desk = Desk(office.picture, office.api, office.clock)
    assert await office.desk.next_request(CALLER, "llm", "", 0) == {}


async def test_another_request_is_asked_though_the_one_before_was_answered() -> None:
    office = Office()
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED, answers=office.ask("Drain")))
    await office.written()
    second = office.ask("SpotInterruption", id="3-2")
    assert (await office.desk.next_request(CALLER, "llm", "3-1", 60))["saveRequest"]["id"] == second


async def test_what_an_earlier_attempt_was_asked_is_asked_of_nobody() -> None:
    office = Office({**RUNNING, "attempt": 4})
    office.add_pod("llm-4-0", 4)
    office.ask("Drain")
    assert await office.desk.next_request(Caller("team", "llm-4-0", "uid-llm-4-0"), "llm", "", 0) == {}


async def test_that_an_attempt_listens_is_written_once() -> None:
    office = Office()
    await office.desk.next_request(CALLER, "llm", "", 0)
    assert (await office.written())["listens"] == 3
    await office.desk.next_request(CALLER, "llm", "", 0)
    await office.written()
    assert office.api.said("merge") == ["merge trainingjobs/status llm"]


async def test_a_poll_that_is_given_up_leaves_nothing_behind() -> None:
    office = Office()
    poll: Awaitable[Json] = asyncio.create_task(office.desk.next_request(CALLER, "llm", "", 60))
    await until_asked(office) if office.desk._jobs else await asyncio.sleep(0)
    poll.cancel()  # type: ignore[attr-defined]
    await asyncio.gather(poll, return_exceptions=True)
    assert not office.desk._jobs[office.uid].waiters


async def test_the_interval_is_told_with_every_answer() -> None:
    office = Office()
    office.desk.interval = lambda raw, saved: saved.seconds * 100 if saved else None
    assert office.desk.take(CALLER, "llm", Report(step=1)) == {}
    assert office.desk.take(CALLER, "llm", Report(checkpoint=SAVED)) == {"intervalSeconds": 250.0}
    assert await office.desk.next_request(CALLER, "llm", "", 0) == {"intervalSeconds": 250.0}


async def test_how_it_gets_on_is_told_at_once_and_written_in_time() -> None:
    office = Office()
    for step in range(1, 9):
        office.desk.take(CALLER, "llm", Report(step=step))
        office.clock.advance(7 if step == 4 else 5)
    assert office.picture.paces[office.uid] == Pace(3, 1_000_037.0, 5.0, 7.0)
    told = (await office.written())["progress"]
    assert (told["attempt"], told["usualSeconds"], told["longestSeconds"]) == (3, 5.0, 7.0)
    assert told["advancedAt"] == to_rfc3339(1_000_037.0)


async def test_who_repeats_itself_does_not_get_on() -> None:
    office = Office()
    for _ in range(3):
        office.desk.take(CALLER, "llm", Report(step=4, percent=10))
        office.clock.advance(60)
    assert office.picture.paces[office.uid].advanced_at == 1_000_000.0


SIGNS_OF_LIFE = (Report(step=5), Report(percent=11), Report(checkpoint=SAVED), Report(problem="the disk is full"))


@pytest.mark.parametrize("report", SIGNS_OF_LIFE)
async def test_a_step_a_percentage_and_the_end_of_a_save_are_signs_of_life(report: Report) -> None:
    office = Office()
    office.desk.take(CALLER, "llm", Report(step=4, percent=10))
    office.clock.advance(60)
    office.desk.take(CALLER, "llm", report)
    assert office.picture.paces[office.uid].advanced_at == 1_000_060.0


@pytest.mark.parametrize("last", [Report(step=10, total=10), Report(percent=100)])
async def test_what_comes_after_the_last_step_has_no_pace(last: Report) -> None:
    office = Office()
    for step in range(1, 9):
        office.desk.take(CALLER, "llm", Report(step=step, total=10))
        office.clock.advance(5)
    assert office.picture.paces[office.uid].usual_seconds == 5.0
    office.desk.take(CALLER, "llm", last)
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED))
    assert office.picture.paces[office.uid].usual_seconds is None
    assert "usualSeconds" not in (await office.written())["progress"]


async def test_nothing_is_usual_before_there_was_enough_of_it() -> None:
    office = Office()
    for step in range(5):
        office.desk.take(CALLER, "llm", Report(step=step))
        office.clock.advance(5)
    assert office.picture.paces[office.uid].usual_seconds is None


async def test_a_new_operator_goes_on_from_the_status_and_counts_no_pause_of_its_own() -> None:
    progress = {"step": 9, "attempt": 3, "advancedAt": to_rfc3339(5.0), "usualSeconds": 4.0, "longestSeconds": 60.0}
    office = Office({**RUNNING, "progress": progress})
    office.desk.take(CALLER, "llm", Report(step=9))
    assert office.picture.paces[office.uid] == Pace(3, 5.0, 4.0, 60.0)
    office.desk.take(CALLER, "llm", Report(step=10))
    assert office.picture.paces[office.uid] == Pace(3, 1_000_000.0, 4.0, 60.0)


async def test_the_pace_of_an_earlier_attempt_is_forgotten() -> None:
    progress = {"step": 9, "attempt": 2, "advancedAt": to_rfc3339(5.0), "usualSeconds": 4.0}
    office = Office({**RUNNING, "progress": progress})
    office.desk.take(CALLER, "llm", Report(step=1))
    assert office.picture.paces[office.uid] == Pace(3, 1_000_000.0, None, 0.0)


async def test_reports_wake_no_plan() -> None:
    office = Office()
    woken: list[None] = []
    office.picture.wake = lambda: woken.append(None)
    for step in range(100):
        office.desk.take(CALLER, "llm", Report(step=step, checkpoint=SAVED if step % 10 == 0 else None))
        await office.written()
    assert woken == []


async def test_it_is_known_since_when_reports_are_heard() -> None:
    office = Office()
    assert office.picture.listening == inf
    await office.written()
    assert office.picture.listening == 1_000_000.0


async def test_a_save_is_measured_once_however_often_it_is_told() -> None:
    office = Office()
    for report in (Report(checkpoint=SAVED), Report(checkpoint=SAVED), Report(checkpoint=SAVED, answers="3-1")):
        office.desk.take(CALLER, "llm", report)
        await office.written()
    office.desk = Desk(office.picture, office.api, office.clock, measures=office.times)
    office.desk.take(CALLER, "llm", Report(checkpoint=SAVED))
    assert office.times.saves == [2.5]


SAVED_BY_2 = {"checkpoint": {"attempt": 2, "step": 120, "time": "1970-01-12T13:40:00Z", "bytes": 10, "seconds": 2.5}}


def note_start(office: Office) -> None:
    """All pods of attempt 3 are ready now."""
    status = {"startedAt": to_rfc3339(office.clock())}
    office.picture.record(TRAINING_JOBS, office.api.edit(TRAINING_JOBS, "team", "llm", status=status))


async def test_a_restore_lasts_from_the_start_to_the_first_progress_and_is_measured_once() -> None:
    office = Office(RUNNING | SAVED_BY_2)
    await office.written()
    note_start(office)
    for step in (121, 122):
        office.clock.advance(40)
        office.desk.take(CALLER, "llm", Report(step=step))
        assert (await office.written())["restore"] == {"attempt": 3, "seconds": 40.0}
    assert office.times.restores == [40.0]


async def test_progress_that_is_told_before_the_start_is_noted_took_no_time() -> None:
    office = Office(RUNNING | SAVED_BY_2)
    await office.written()
    office.desk.take(CALLER, "llm", Report(step=121))
    assert office.times.restores == []
    note_start(office)
    office.clock.advance(30)
    office.desk.take(CALLER, "llm", Report(step=122))
    assert office.times.restores == [0.0]


@pytest.mark.parametrize("status", [RUNNING, RUNNING | {"checkpoint": SAVED_BY_2["checkpoint"] | {"attempt": 3}}])
async def test_an_attempt_that_had_nothing_to_go_on_from_restores_nothing(status: Json) -> None:
    office = Office(status)
    await office.written()
    note_start(office)
    office.clock.advance(40)
    office.desk.take(CALLER, "llm", Report(step=1, checkpoint=SAVED))
    office.desk.take(CALLER, "llm", Report(step=2))
    assert office.times.restores == []


async def test_an_attempt_that_began_while_nobody_listened_is_not_measured() -> None:
    office = Office(RUNNING | SAVED_BY_2)
    note_start(office)
    office.clock.advance(40)
    await office.written()
    office.desk.take(CALLER, "llm", Report(step=121))
    assert office.times.restores == []
    assert "restore" not in await office.written()
