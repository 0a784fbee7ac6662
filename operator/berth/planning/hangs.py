"""Attempts that run and get on no more: one is restarted elsewhere, and the next in a row counts as a crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from berth.model.failures import HUNG, Crash, Pace
from berth.model.reasons import Verdict
from berth.model.workloads import Attempt, Pod, PodPhase, Workload
from berth.planning.actions import Stop
from berth.planning.failures import RESTARTED, away, backoff, counted, exhausted, recorded, restart_text, saved_more
from berth.planning.scratch import Scratch

USUAL_TIMES = 10.0  # so many times as long as usual is too long
PAUSE_TIMES = 2.0  # and so many times as long as the longest pause so far: evaluations come again
SAVE_TIMES = 3.0  # and as the last save took: no step is made meanwhile
SHORTEST_SECONDS = 300.0
UNMEASURED_SECONDS = 1800.0  # at least, as long as no save was measured: the first may take this long
DISCONNECTED_SECONDS = 60.0  # until all who report have found an operator that began: they ask each 30 s or more often


def stop_if_hung(s: Scratch, w: Workload, attempt: Attempt, pods: Sequence[Pod]) -> bool:
    """Stop an attempt that got on no more for too long; say whether it was."""
    whole = len(pods) == len(attempt.placement.nodes) and all(p.phase is PodPhase.READY for p in pods)
    if not w.started_at or not whole or any(p.terminating for p in pods):
        return False
    told = s.snapshot.paces.get(w.ref.uid, w.pace)
    pace = told if told.attempt == attempt.number else Pace()
    longest = patience(w, pace)
    if longest == inf:
        return False
    since = max(w.started_at, pace.advanced_at, s.snapshot.listening + DISCONNECTED_SECONDS)
    if since == inf:
        return False
    s.wake(since + longest)
    if since + longest > s.now:
        return False
    _stop(s, w, attempt, pods, _words(s.now - max(w.started_at, pace.advanced_at), pace))
    return True


def patience(w: Workload, pace: Pace) -> float:
    """Seconds without progress until an attempt has hung; infinite: it never has.

    By its own pace, once that is known: ten times as long as between two reports of progress, twice as long as the
    longest pause so far and three times as long as a save, but 5 min at least. Twice as long after each hang in a row,
    so that whoever was only slow gets through.
    """
    if w.restart.hang_seconds is not None:
        return w.restart.hang_seconds
    if pace.usual_seconds is None:
        return inf
    saves = SAVE_TIMES * w.save_seconds if w.save_seconds else UNMEASURED_SECONDS
    longest = max(USUAL_TIMES * pace.usual_seconds, PAUSE_TIMES * pace.longest_seconds, saves, SHORTEST_SECONDS)
    doubled: float = longest * 2.0**w.failures.hangs_in_a_row
    return doubled


def _stop(s: Scratch, w: Workload, attempt: Attempt, pods: Sequence[Pod], what: str) -> None:
    nodes = set(attempt.placement.nodes)
    crash = Crash(attempt.number, s.now, min(nodes) if len(nodes) == 1 else "", None, HUNG)
    again = w.failures.hangs_in_a_row > 0 and not saved_more(w)
    reason, wait = RESTARTED, 0.0
    if not again:
        failures = replace(recorded(w, crash), step=w.saved_step)
        message = f"{what}: restarted"
    elif w.failures.restarts < w.restart.most:
        failures = counted(s, w, crash)
        wait = backoff(w.restart, failures.row)
        message = f"{what}, once more: {restart_text(w, failures)}, in {wait:g} s"
    else:
        failures, reason = recorded(w, crash), HUNG
        message = f"{what}, once more; {exhausted(w)}"
    failures = replace(failures, hangs=w.failures.hangs + 1)
    avoid = away(s, w, attempt, pods, nodes, s.now + wait)
    first = min(pods, key=lambda p: (p.index, p.uid))
    stop = Stop(w.ref, attempt.number, reason, message, avoid, s.now + wait, failures=failures, log_of=first)
    s.decide(w.ref, Verdict(reason, message), stop)


def _words(seconds: float, pace: Pace) -> str:
    usual = f", though one comes every {pace.usual_seconds:g} s" if pace.usual_seconds is not None else ""
    return f"no progress was reported for {seconds:.0f} s{usual}"
