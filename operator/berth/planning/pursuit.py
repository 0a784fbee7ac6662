"""Re-layouts that are under way: each goes on until its boards show what was wanted, is repeated, or given up."""

from __future__ import annotations

from dataclasses import replace

from berth.model.nodes import Node, Progress, Relayout, Trouble
from berth.planning.actions import EndLayout, LayOut, NodeAction
from berth.planning.scratch import Scratch
from berth.planning.supply import in_words

MOST_ATTEMPTS = 4  # at 0, 15, 45 and 105 s: mig-manager's mounted ConfigMap lags by up to 90 s
RETRY_SECONDS = 15.0  # after a failed attempt; doubles each time
PAUSE_SECONDS = (60.0, 3600.0)  # first and longest time that a node is left alone after a re-layout was given up


def pursue(s: Scratch) -> list[NodeAction]:
    """The next step of each re-layout that is under way."""
    flying = sorted((n for n in s.snapshot.nodes.values() if n.relayout is not None), key=lambda n: n.name)
    steps = (_next(s, node, node.relayout) for node in flying if node.relayout is not None)
    return [step for step in steps if step is not None]


def pause_seconds(times: int) -> float:
    """How long a node is left alone after so many re-layouts of it, one after the other, were given up."""
    first, longest = PAUSE_SECONDS
    return min(first * float(2 ** min(times - 1, 10)), longest)


def words_of(relayout: Relayout) -> str:
    """The boards and what they become."""
    return ", ".join(in_words(layout) for layout in relayout.boards)


def _next(s: Scratch, node: Node, relayout: Relayout) -> NodeAction | None:
    """Go on with a re-layout: end it, try once more, or give it up."""
    if relayout.progress is Progress.DONE:
        fresh = {layout.index: s.now for layout in relayout.boards}
        resting = {i: at for i, at in node.laid if at + s.policy.relayout_pause_seconds > s.now}
        rests = tuple(sorted({**resting, **fresh}.items()))
        return EndLayout(node.name, relayout, rests, None, f"laid out {words_of(relayout)}")
    again, why = _trouble(s, relayout)
    s.wake(again)
    if again > s.now:
        return None
    silent = s.snapshot.observed.get(node.name, 0.0) + s.policy.stale_seconds <= s.now
    if silent or relayout.attempt >= MOST_ATTEMPTS:
        return _give_up(s, node, relayout, f"{why}, and its agent is silent" if silent else why)
    attempt = replace(relayout, attempt=relayout.attempt + 1, tried=s.now, progress=Progress.WORKING, message="")
    return LayOut(node.name, attempt, f"{words_of(relayout)}, attempt {attempt.attempt}: {why}")


def _trouble(s: Scratch, relayout: Relayout) -> tuple[float, str]:
    """When this attempt has to be left, and why."""
    late = relayout.tried + s.policy.relayout_timeout_seconds
    if relayout.progress is Progress.FAILED:
        wait = RETRY_SECONDS * 2 ** min(relayout.attempt - 1, MOST_ATTEMPTS)  # anybody may write the record
        return min(late, relayout.tried + wait), relayout.message or "it failed"
    return late, f"no end after {s.policy.relayout_timeout_seconds:g} s"


def _give_up(s: Scratch, node: Node, relayout: Relayout, why: str) -> EndLayout:
    times = node.trouble.times + 1 if node.trouble else 1
    pause = pause_seconds(times)
    trouble = Trouble(times, s.now + pause, f"{words_of(relayout)}: {why}")
    message = f"gave up {trouble.why}; again in {pause:g} s"
    return EndLayout(node.name, relayout, node.laid, trouble, message)
