"""An attempt whose Job failed: whose fault that is, and whether another one follows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import inf

from berth.model.failures import Crash, Failures, Restart
from berth.model.reasons import Verdict
from berth.model.workloads import Attempt, Pod, PodPhase, Request, Workload
from berth.planning.actions import Finish, Stop
from berth.planning.moves import Avoid
from berth.planning.packing import pack
from berth.planning.scratch import Scratch, gang_of, linked_boards

RESTARTED = "Restarted"  # the reason of an attempt that another one follows, on its own account
EXIT_SAVED = 75  # EX_TEMPFAIL: saved, restart me (docs/checkpoints.md)
SIGNALS = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
OUT_OF_MEMORY = "OOMKilled"
LONGEST_BACKOFF_SECONDS = 300.0  # as the kubelet has it
FINE_SECONDS = 600.0  # who ran for so long did not end in vain: the kubelet, too, begins anew then
MOST_DOUBLINGS = 10
MOST_CRASHES = 5  # that a status remembers


def fails(pods: Sequence[Pod]) -> bool:
    """Whether a Job is about to fail, since a worker ended badly and others are told to end: pods are seen earlier."""
    bad = any(p.phase is PodPhase.FAILED and not p.terminating and not p.disrupted for p in pods)
    return bad and any(p.terminating for p in pods)


def judge(s: Scratch, w: Workload, attempt: Attempt, pods: Sequence[Pod]) -> None:
    """Restart a job whose Job failed by a worker that ended by itself, or let it fail for good.

    1. What a disruption of the gang brought about counts for nothing: it is planned anew.
    2. A worker that saved and asked for it is restarted, at once if it saved anything new.
    3. A crash is restarted after a wait, as often as `Restart.most` says, and elsewhere if there is room.
    """
    first = _first_to_end(pods)
    why = _disruption(s, attempt, pods, first)
    if why or first is None:
        _stop(s, w, attempt, "Requeued", f"{why}: planned anew", w.avoid, s.now)
    elif first.exit_code == EXIT_SAVED:
        row = 0 if advanced(s, w) else w.failures.row + 1
        wait = backoff(w.restart, row)
        message = f"{_worker(first)} saved, and asked to be restarted (exit code {EXIT_SAVED}){_pause(wait)}"
        failures = replace(w.failures, row=row, step=w.saved_step)
        _stop(s, w, attempt, RESTARTED, message, w.avoid, s.now + wait, failures)
    else:
        _crashed(s, w, attempt, pods, first)


def _crashed(s: Scratch, w: Workload, attempt: Attempt, pods: Sequence[Pod], guilty: Pod) -> None:
    crash = Crash(attempt.number, guilty.ended_at or s.now, guilty.node, guilty.exit_code, _reason(guilty))
    what = f"{_worker(guilty)} ended{_ending(guilty)}"
    if w.failures.restarts >= w.restart.most:
        message = f"{what}; {exhausted(w)}"
        failures = recorded(w, crash)
        end = Finish(w.ref, attempt.number, "Failed", "Failed", message, failures, guilty)
        s.decide(w.ref, Verdict("Failed", message), end)
        return
    failures = counted(s, w, crash)
    wait = backoff(w.restart, failures.row)
    message = f"{what}: {restart_text(w, failures)}{_pause(wait)}"
    avoid = away(s, w, attempt, pods, [guilty.node], s.now + wait)
    _stop(s, w, attempt, RESTARTED, message, avoid, s.now + wait, failures, guilty)


def saved_more(w: Workload) -> bool:
    """Whether anything new was saved since the last failure."""
    before = w.failures.step
    return w.saved_step is not None and (before is None or w.saved_step > before)


def advanced(s: Scratch, w: Workload) -> bool:
    """Whether the live attempt was not in vain: it saved something new, or ran for long."""
    return saved_more(w) or bool(w.started_at and s.now - w.started_at >= FINE_SECONDS)


def backoff(restart: Restart, row: int) -> float:
    """Seconds to wait after so many attempts in vain, one after the other.

    >>> [backoff(Restart(), row) for row in (0, 1, 2, 3, 6, 100)]
    [0.0, 10.0, 20.0, 40.0, 300.0, 300.0]
    """
    if row < 1:
        return 0.0
    first: float = restart.backoff_seconds
    return max(first, min(first * 2.0 ** min(row - 1, MOST_DOUBLINGS), LONGEST_BACKOFF_SECONDS))


def recorded(w: Workload, crash: Crash) -> Failures:
    """What a job remembers of its failures, with this one."""
    return replace(w.failures, last=(*w.failures.last, crash)[-MOST_CRASHES:])


def counted(s: Scratch, w: Workload, crash: Crash) -> Failures:
    """The same, once it is restarted after it. The row begins anew after an attempt that was not in vain."""
    row = 1 if advanced(s, w) else w.failures.row + 1
    return replace(recorded(w, crash), restarts=w.failures.restarts + 1, row=row, step=w.saved_step)


def restart_text(w: Workload, failures: Failures) -> str:
    """Which restart comes next, in words."""
    return f"restart {failures.restarts} of {w.restart.most} (spec.restart.maxRestarts)"


def exhausted(w: Workload) -> str:
    """That no restart is left, in words."""
    made = w.failures.restarts
    times = f"it was restarted {made} {'time' if made == 1 else 'times'}, and " if made else ""
    return f"{times}spec.restart.maxRestarts is {w.restart.most}"


def away(s: Scratch, w: Workload, attempt: Attempt, pods: Sequence[Pod], nodes: Collection[str], since: float) -> Avoid:
    """The workload's record of nodes to avoid, with these added if its gang fits elsewhere once its pods are gone.

    They are avoided for a while only: room that is free now may be taken by then.
    """
    added = frozenset(node for node in nodes if node)
    if w.request is None or not added or not _fits_without(s, w, w.request, attempt, pods, added):
        return w.avoid
    until = since + s.policy.avoid_seconds
    return (*((node, at) for node, at in w.avoid if at > s.now), *((node, until) for node in sorted(added)))


def _fits_without(
    s: Scratch, w: Workload, request: Request, attempt: Attempt, pods: Sequence[Pod], nodes: frozenset[str]
) -> bool:
    device, members = attempt.placement.device, len(attempt.placement.nodes)
    field = s.field(request.shape, device, s.avoided(w) | nodes, linked_boards(request, device))
    if field is None:
        return False
    capacity = field.capacity.copy()
    for pod in pods:  # of a node where one is, another will fit
        i = field.pool.index.get(pod.node)
        if i is not None and not field.causes[i] and pod.phase in (PodPhase.BOUND, PodPhase.READY):
            capacity[i] += 1
    return pack(field.with_capacity(capacity), gang_of(request, device, s.fleet.levels, members)) is not None


def _stop(
    s: Scratch,
    w: Workload,
    attempt: Attempt,
    reason: str,
    message: str,
    avoid: Avoid,
    not_before: float,
    failures: Failures | None = None,
    guilty: Pod | None = None,
) -> None:
    stop = Stop(w.ref, attempt.number, reason, message, avoid, not_before, failures=failures, log_of=guilty)
    s.decide(w.ref, Verdict(reason, message), stop)


def _first_to_end(pods: Sequence[Pod]) -> Pod | None:
    """The worker that brought its gang down: what others ended with came of that.

    1. One that did not save. 2. One whose exit code says something. 3. The first in time. 4. One that did not end by
    SIGTERM, which comes from outside.
    """
    ended = [p for p in pods if p.phase is PodPhase.FAILED and not p.terminating and not p.disrupted]

    def key(p: Pod) -> tuple[bool, bool, float, bool, float, int, str]:
        saved, sigterm = p.exit_code == EXIT_SAVED, p.exit_code == 143
        return saved, not p.exit_code, p.ended_at or inf, sigterm, p.created, p.index, p.uid

    return min(ended, key=key, default=None)


def _disruption(s: Scratch, attempt: Attempt, pods: Sequence[Pod], first: Pod | None) -> str:
    """What came over the gang from outside before the first worker ended by itself, in words; "" for nothing."""
    disrupted = min((p for p in pods if p.disrupted), key=lambda p: (p.index, p.uid), default=None)
    if first is None or disrupted is not None:
        which = _worker(disrupted) if disrupted else "a worker"
        return f"{which} was evicted, or its node is lost"
    told = (p for p in pods if p.terminating and 0 < (p.ending_since or p.ended_at) < first.ended_at)
    if deleted := min(told, key=lambda p: (p.index, p.uid), default=None):
        return f"{_worker(deleted)} was deleted, and its gang ended with it"
    for name in dict.fromkeys(attempt.placement.nodes):
        node = s.fleet.nodes.get(name)
        if node is None or not node.ready:
            return f"node {name} is {'not ready' if node else 'gone'}, and its gang ended with it"
        if node.interruption is not None:
            return f"node {name} is going away ({node.interruption.reason}), and its gang ended with it"
    return ""


def _worker(pod: Pod) -> str:
    return f"worker {pod.index} on {pod.node or 'no node'}"


def _reason(pod: Pod) -> str:
    if pod.message.startswith(OUT_OF_MEMORY):
        return OUT_OF_MEMORY
    return SIGNALS.get(pod.exit_code or 0, "")


def _ending(pod: Pod) -> str:
    signal = SIGNALS.get(pod.exit_code or 0, "")
    code = "" if pod.exit_code is None else f" with exit code {pod.exit_code}{f' ({signal})' if signal else ''}"
    said = pod.message.removeprefix("Error").strip()  # which is all that the kubelet says of most
    return f"{code}{f': {said}' if said else ''}"


def _pause(seconds: float) -> str:
    return f", in {seconds:g} s" if seconds else ""
