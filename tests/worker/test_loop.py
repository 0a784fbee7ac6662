"""A training loop with a Worker: saves on time, on request and at SIGTERM; ranks that leave after the same step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from berth.worker import EXIT_SAVED, EXIT_UNSAVED, Worker, newest
from tests.worker.builders import ProgressServer, a_progress_server, until, weights
from tests.worker.test_schedule import Timer


@pytest.fixture
def server() -> Iterator[ProgressServer]:
    with a_progress_server() as server:
        yield server


def an_environment(tmp_path: Path, server: ProgressServer | None = None, **more: Any) -> dict[str, str]:
    """What Berth sets."""
    told = {"KUBEFLOW_TRAINER_SERVER_URL": server.url} if server else {}
    return {"CHECKPOINT_DIR": str(tmp_path / "2"), "RESUME_FROM": str(tmp_path / "1"), **told, **more}


def steps_of(*folders: Path) -> int | None:
    found = newest(folders)
    return found.step if found else None


def test_it_saves_when_the_interval_is_over(tmp_path: Path) -> None:
    timer = Timer()
    with Worker(environ=an_environment(tmp_path, CHECKPOINT_INTERVAL="100"), timer=timer) as berth:
        for step in range(1, 13):
            timer.now += 30
            berth.step(step, weights(str(step)))
    assert steps_of(tmp_path / "2") == 12
    assert sorted(os.listdir(tmp_path / "2")) == ["latest.json", "step-12", "step-8"]


def test_it_resumes_from_the_attempt_before_and_then_from_its_own(tmp_path: Path) -> None:
    timer = Timer()
    environment = an_environment(tmp_path, CHECKPOINT_INTERVAL="1")
    with Worker(environ={**environment, "CHECKPOINT_DIR": str(tmp_path / "1")}, timer=timer) as berth:
        assert berth.resume() is None
        timer.now += 1
        berth.step(5, weights())
    with Worker(environ=environment, timer=timer) as berth:
        found = berth.resume()
        assert found is not None
        assert found.step == 5
        timer.now += 1
        berth.step(6, weights())
    with Worker(environ=environment) as berth:
        found = berth.resume()
        assert found is not None
        assert found.step == 6


def test_sigterm_saves_after_the_step_and_leaves_with_the_code_that_says_so(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    berth = Worker(environ=an_environment(tmp_path))
    berth.step(1, weights())
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as leaving:
        berth.step(2, weights())
    assert leaving.value.code == EXIT_SAVED == 75
    assert steps_of(tmp_path / "2") == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_leaving_without_a_save_says_so(tmp_path: Path) -> None:
    (tmp_path / "2").write_text("no folder")
    with Worker(environ=an_environment(tmp_path)) as berth:
        berth.stop()
        with pytest.raises(SystemExit) as leaving:
            berth.step(1, weights())
    assert leaving.value.code == EXIT_UNSAVED == 143


def test_a_save_that_fails_is_told_and_training_goes_on(
    tmp_path: Path, server: ProgressServer, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "2").write_text("no folder")
    timer = Timer()
    with Worker(environ=an_environment(tmp_path, server, CHECKPOINT_INTERVAL="100"), timer=timer) as berth:
        timer.now += 100
        berth.step(1, weights())
        berth.step(2, weights())
    assert caplog.text.count("was not saved") == 1
    assert any("step 1 was not saved" in r["berth"].get("problem", "") for r in server.reports)


def test_a_request_is_answered_by_a_save_and_nobody_leaves(tmp_path: Path, server: ProgressServer) -> None:
    with Worker(environ=an_environment(tmp_path, server)) as berth:
        berth.step(1, weights())
        assert steps_of(tmp_path / "2") is None
        server.ask_for_a_save("r1")
        until(lambda: berth._request)
        berth.step(2, weights())
        assert steps_of(tmp_path / "2") == 2
        until(lambda: server.checkpoints() == [2])
        berth.step(3, weights())
        assert server.reports[-1]["berth"]["answers"] == "r1"
    assert steps_of(tmp_path / "2") == 2, "one request is one save"


def test_a_request_for_what_is_durable_already_is_answered_without_a_save(
    tmp_path: Path, server: ProgressServer
) -> None:
    with Worker(environ=an_environment(tmp_path, server)) as berth:
        for name in ("r1", "r2"):
            server.ask_for_a_save(name)
            until(lambda: berth._request)
            berth.step(7, lambda folder: weights()(folder))
            until(lambda name=name: any(r["berth"].get("answers") == name for r in server.reports))
    assert server.checkpoints() == [7, 7]
    assert sorted(os.listdir(tmp_path / "2")) == ["latest.json", "step-7"]


def test_the_interval_that_the_server_tells_is_taken(tmp_path: Path, server: ProgressServer) -> None:
    server.answer = {"intervalSeconds": 50}
    timer = Timer()
    with Worker(environ=an_environment(tmp_path, server), timer=timer) as berth:
        timer.now += 10_000
        berth.step(1, weights())
        until(lambda: berth._schedule.interval_seconds == 50)
        timer.now += 50
        berth.step(2, weights())
    assert steps_of(tmp_path / "2") == 2


def test_progress_says_how_far_and_how_long(tmp_path: Path, server: ProgressServer) -> None:
    timer = Timer()
    with Worker(environ=an_environment(tmp_path, server), timer=timer) as berth:
        for step in range(1, 46):
            timer.now += 2
            berth.step(step, total=100, metrics={"loss": 0.15})
    last = server.reports[-1]
    assert last["trainerStatus"]["progressPercentage"] == 45
    assert last["trainerStatus"]["estimatedRemainingSeconds"] == 110
    assert last["trainerStatus"]["metrics"] == [{"name": "loss", "value": "0.15"}]
    assert last["berth"] == {"step": 45, "totalSteps": 100}


def test_only_the_first_rank_reports_and_only_one_process_of_a_pod_asks(tmp_path: Path, server: ProgressServer) -> None:
    with Worker(environ=an_environment(tmp_path, server, RANK="9", LOCAL_RANK="1")) as berth:
        berth.step(1, weights(), total=2)
    assert server.reports == []
    assert server.polls == []


def test_outside_berth_it_does_nothing() -> None:
    with Worker(environ={}) as berth:
        assert berth.resume() is None
        berth.step(1, weights(), total=3)


def in_ranks(count: int, run: Callable[[int, Callable[[int], int]], None]) -> None:
    """Run a function as `count` ranks, each with an all-reduce by MAX."""
    barrier, numbers = threading.Barrier(count), [0] * count

    def rank(number: int) -> None:
        def agree(value: int) -> int:
            numbers[number] = value
            barrier.wait(20)
            highest = max(numbers)
            barrier.wait(20)
            return highest

        try:
            run(number, agree)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    failures: list[BaseException] = []
    threads = [threading.Thread(target=rank, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def part(rank: int, text: str) -> Callable[[Path], None]:
    """This rank's part of a checkpoint."""
    return lambda folder: (folder / f"rank-{rank}.bin").write_text(text)  # type: ignore[return-value]


def test_a_gang_leaves_after_the_same_step_though_one_rank_is_told_first(tmp_path: Path) -> None:
    left: dict[int, tuple[int, Any]] = {}

    def run(rank: int, agree: Callable[[int], int]) -> None:
        with Worker(agree=agree, environ=an_environment(tmp_path, RANK=str(rank))) as berth:
            for step in range(1, 10):
                if step == 3 and rank == 2:
                    berth.stop()
                try:
                    berth.step(step, weights())
                except SystemExit as leaving:
                    left[rank] = (step, leaving.code)
                    return

    in_ranks(3, run)
    assert left == dict.fromkeys(range(3), (3, EXIT_SAVED))
    assert steps_of(tmp_path / "2") == 3


def test_a_sharded_checkpoint_holds_every_rank_s_part(tmp_path: Path) -> None:
    def run(rank: int, agree: Callable[[int], int]) -> None:
        with Worker(agree=agree, sharded=True, environ=an_environment(tmp_path, RANK=str(rank))) as berth:
            berth.stop()
            with pytest.raises(SystemExit, match=str(EXIT_SAVED)):
                berth.step(4, part(rank, "abc"))

    in_ranks(3, run)
    found = newest([tmp_path / "2"])
    assert found is not None
    assert [name for name, _, _ in found.manifest.files] == [f"rank-{rank}.bin" for rank in range(3)]


def test_a_sharded_checkpoint_of_which_a_part_failed_is_none(tmp_path: Path) -> None:
    def run(rank: int, agree: Callable[[int], int]) -> None:
        def fail(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        with Worker(agree=agree, sharded=True, environ=an_environment(tmp_path, RANK=str(rank))) as berth:
            berth.stop()
            with pytest.raises(SystemExit, match=str(EXIT_UNSAVED)):
                berth.step(4, fail if rank == 1 else part(rank, "abc"))

    in_ranks(3, run)
    assert steps_of(tmp_path / "2") is None
