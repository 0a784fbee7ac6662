"""How status is written down and read back: times, ranks, placements, conditions, verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from berth.control.ports import Json
from berth.model.failures import Crash, Failures, Pace
from berth.model.idling import Idle
from berth.model.losses import Loss, Losses
from berth.model.pools import Shortfall
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Claim, Device, Kind, Past, Placement, Ref, Resize, SaveRequest
from berth.planning.fairness import HOUR, Standing, counted

MOST_RANKS = 10_000  # as many as a TrainingJob may have workers
SHOWN_NODES = 3  # of a placement's summary, so that a column stays readable
DIGITS = 4  # of board-hours and of boards, which may be 1/7 of one
LEAST_HOURS = 0.01  # of a board: less is forgotten
Condition = Mapping[str, Any]


def to_rfc3339(seconds: float) -> str:
    """A time as the API writes it, in whole seconds.

    >>> to_rfc3339(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str | None) -> float:
    """Seconds since the epoch; 0 for no time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def ranks_text(ranks: Iterable[int]) -> str:
    """Ascending ranks in short.

    >>> ranks_text([0, 1, 2, 3, 7])
    '0-3,7'
    """
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def ranks_from(text: str) -> list[int]:
    """The inverse of `ranks_text`. Raises ValueError where the text states no such ranks: anybody may write a status.

    >>> ranks_from("0-3,7")
    [0, 1, 2, 3, 7]
    """
    ranks: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < MOST_RANKS:
            raise ValueError(f"no run of ranks: {part!r}")
        ranks += range(low, high + 1)
    return ranks


def device_status(device: Device) -> Json:
    """A device as status states it."""
    return {"model": device.model, "resource": device.resource, "count": device.count}


def placement_status(placement: Placement) -> Json:
    """A placement as status states it: nodes with their ranks, short for a thousand members."""
    by_node: dict[str, list[int]] = {}
    for rank, node in enumerate(placement.nodes):
        by_node.setdefault(node, []).append(rank)
    assignments = [{"node": node, "ranks": ranks_text(ranks)} for node, ranks in by_node.items()]
    shown = [f"{a['node'] or f'pool {placement.pool}'} ({a['ranks']})" for a in assignments[:SHOWN_NODES]]
    if len(assignments) > SHOWN_NODES:
        shown.append(f"and {len(assignments) - SHOWN_NODES} more")
    told: Json = {"device": device_status(placement.device), "assignments": assignments, "summary": ", ".join(shown)}
    return told | {"pool": placement.pool or None}


def placement_from(status: Mapping[str, Any]) -> Placement:
    """The inverse of `placement_status`. Raises KeyError or ValueError when it states no whole placement."""
    device = status["device"]
    nodes = {rank: a["node"] for a in status["assignments"] for rank in ranks_from(a["ranks"])}
    return Placement(
        device=Device(model=device["model"], resource=device["resource"], count=device["count"]),
        nodes=tuple(nodes[rank] for rank in range(len(nodes))),
        pool=status.get("pool") or "",
    )


def claim_status(claim: Claim | None) -> Json | None:
    """For whom a workload gave way, as status states it."""
    if claim is None:
        return None
    ref = claim.ref
    return {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "uid": ref.uid, "attempt": claim.attempt}


def claim_from(status: Mapping[str, Any] | None) -> Claim | None:
    """The inverse of `claim_status`."""
    if not status:
        return None
    ref = Ref(Kind(status["kind"]), status["namespace"], status["name"], status["uid"])
    return Claim(ref, status["attempt"])


def save_request_status(request: SaveRequest | None) -> Json | None:
    """What an attempt's members were asked, as status states it."""
    if request is None:
        return None
    return {
        "id": request.id,
        "attempt": request.attempt,
        "reason": request.reason,
        "node": request.node,
        "time": to_rfc3339(request.at),
        "deadline": to_rfc3339(request.deadline) if request.deadline else None,
    }


def save_request_from(status: Mapping[str, Any] | None) -> SaveRequest | None:
    """The inverse of `save_request_status`."""
    if not status:
        return None
    at, deadline = from_rfc3339(status["time"]), from_rfc3339(status.get("deadline"))
    return SaveRequest(status["id"], status["attempt"], status["reason"], status["node"], at, deadline)


def idle_status(idle: Idle | None) -> Json | None:
    """Since when boards are idle, as status states it."""
    return {"since": to_rfc3339(idle.since), "told": idle.told} if idle else None


def idle_from(status: Mapping[str, Any] | None) -> Idle | None:
    """The inverse of `idle_status`."""
    return Idle(from_rfc3339(status["since"]), bool(status.get("told"))) if status else None


def was_accepted(raw: Mapping[str, Any]) -> bool:
    """Whether status tells that the API server took a job's template as it is now: only then it gets a verdict.

    So who waited before a restart keeps its turn after it, ahead of whose template is judged first.
    """
    status = raw.get("status") or {}
    reason = (status.get("verdict") or {}).get("reason")
    judged = status.get("observedGeneration") == raw["metadata"].get("generation", 1)
    return raw.get("kind") == Kind.TRAINING_JOB and judged and reason not in (None, Reason.MISCONFIGURED)


def verdict_status(verdict: Verdict) -> Json:
    """A verdict as status states it. Absent numbers are null, so that a merge patch clears old ones."""
    return {
        "reason": verdict.reason,
        "message": verdict.message,
        "fits": verdict.fits,
        "wanted": verdict.wanted,
        "nodes": [{"cause": cause, "count": count} for cause, count in verdict.nodes] or None,
        "until": None if verdict.until is None else to_rfc3339(verdict.until),
        "position": verdict.position,
    }


def verdict_from(status: Mapping[str, Any] | None) -> Verdict | None:
    """The inverse of `verdict_status`."""
    if not status:
        return None
    return Verdict(
        reason=status["reason"],
        message=status.get("message", ""),
        fits=status.get("fits"),
        wanted=status.get("wanted"),
        nodes=tuple((entry["cause"], entry["count"]) for entry in status.get("nodes") or ()),
        until=from_rfc3339(status["until"]) if status.get("until") else None,
        position=status.get("position"),
    )


def avoid_status(avoid: Iterable[tuple[str, float]]) -> list[Json]:
    """Avoided nodes as status states them."""
    return [{"node": node, "until": to_rfc3339(until)} for node, until in avoid]


def avoid_from(status: Iterable[Mapping[str, Any]] | None) -> tuple[tuple[str, float], ...]:
    """The inverse of `avoid_status`."""
    return tuple((entry["node"], from_rfc3339(entry["until"])) for entry in status or ())


def shortfalls_status(shortfalls: Iterable[Shortfall]) -> list[Json]:
    """Pools that failed a job, as status states it."""
    return [{"pool": fall.pool, "time": to_rfc3339(fall.at)} for fall in shortfalls]


def shortfalls_from(status: Iterable[Mapping[str, Any]] | None) -> tuple[Shortfall, ...]:
    """The inverse of it."""
    return tuple(Shortfall(fall["pool"], from_rfc3339(fall["time"])) for fall in status or ())


def moved_status(moved: tuple[float, float] | None) -> Json | None:
    """A move in quiet hours as status states it, in cents."""
    return {"time": to_rfc3339(moved[0]), "usd": round(moved[1], 2)} if moved else None


def moved_from(status: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The inverse of `moved_status`."""
    return (from_rfc3339(status["time"]), float(status["usd"])) if status else None


def resized_status(resize: Resize | None) -> Json | None:
    """Another number of members, as status states it."""
    return {"attempt": resize.attempt, "from": resize.before, "to": resize.after} if resize else None


def resized_from(status: Mapping[str, Any] | None) -> Resize | None:
    """The inverse of `resized_status`."""
    return Resize(status["attempt"], status["from"], status["to"]) if status else None


def failures_status(failures: Failures) -> Json | None:
    """What a job remembers of its failures besides their numbers, as status states it."""
    if failures == Failures(failures.restarts, failures.hangs):
        return None
    last = [
        {"attempt": c.attempt, "time": to_rfc3339(c.at), "node": c.node or None, "exitCode": c.exit_code}
        | {"reason": c.reason or None}
        for c in failures.last
    ]
    return {"inARow": failures.row, "savedStep": failures.step, "last": last}


def failures_from(status: Mapping[str, Any]) -> Failures:
    """The inverse of it, from a whole status."""
    told = status.get("failures") or {}
    last = (
        Crash(int(c["attempt"]), from_rfc3339(c["time"]), c.get("node") or "", c.get("exitCode"), c.get("reason") or "")
        for c in told.get("last") or ()
    )
    row, step = told.get("inARow") or 0, told.get("savedStep")
    return Failures(status.get("restarts") or 0, status.get("hangs") or 0, row, step, tuple(last))


def pace_status(pace: Pace) -> Json:
    """How an attempt gets on, as a status's progress states it."""
    return {
        "attempt": pace.attempt,
        "advancedAt": to_rfc3339(pace.advanced_at) if pace.advanced_at else None,
        "usualSeconds": None if pace.usual_seconds is None else round(pace.usual_seconds, 1),
        "longestSeconds": round(pace.longest_seconds, 1) or None,
    }


def pace_from(status: Mapping[str, Any]) -> Pace:
    """The inverse of it, from a whole status."""
    told = status.get("progress") or {}
    return Pace(
        told.get("attempt") or 0,
        from_rfc3339(told.get("advancedAt")),
        told.get("usualSeconds"),
        told.get("longestSeconds") or 0.0,
    )


def losses_status(losses: Losses) -> Json | None:
    """What a job lost so far, as status states it."""
    if not losses.by_reason:
        return None
    by_reason = [
        {"reason": loss.reason, "attempts": loss.attempts, "gpuSeconds": round(loss.gpu_seconds, 1)}
        for loss in losses.by_reason
    ]
    return {"gpuSeconds": round(losses.gpu_seconds, 1), "byReason": by_reason}


def losses_from(status: Mapping[str, Any] | None) -> Losses:
    """The inverse of `losses_status`."""
    found = (status or {}).get("byReason") or ()
    return Losses(tuple(Loss(one["reason"], one["attempts"], float(one["gpuSeconds"])) for one in found))


def with_condition(
    conditions: Sequence[Condition],
    kind: str,
    value: bool,
    reason: str,
    message: str = "",
    *,
    now: float,
    generation: int,
) -> list[Condition]:
    """The conditions with this one set; the time of its last transition moves only when its value does."""
    status = "True" if value else "False"
    old = next((c for c in conditions if c["type"] == kind), None)
    since = old["lastTransitionTime"] if old is not None and old["status"] == status else to_rfc3339(now)
    new = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }
    if old is None:
        return [*conditions, new]
    return [new if c["type"] == kind else c for c in conditions]


def condition(conditions: Iterable[Condition] | None, kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((c for c in conditions or () if c["type"] == kind), None)


def is_true(conditions: Iterable[Condition] | None, kind: str) -> bool:
    """Whether the condition is there and True."""
    found = condition(conditions, kind)
    return found is not None and found["status"] == "True"


def fair_share_status(standing: Standing, old: Mapping[str, Any] | None, half_life_hours: float) -> Json | None:
    """How a queue stands, and what it used so far. What was written of that stays as long as it still tells the truth.

    It does while the same is held as then: the rest is arithmetic.
    """
    past, before = standing.past, past_from(old)
    expected = counted(before, past.at, half_life_hours)
    models = sorted({*past.board_hours, *past.boards, *before.boards})
    held = {m: round(past.boards.get(m, 0.0), DIGITS) for m in models}
    if not before.at or any(
        held[m] != before.boards.get(m, 0.0) or not _close(expected.get(m, 0.0), past.board_hours.get(m, 0.0))
        for m in models
    ):
        told: Json = {"countedAt": to_rfc3339(past.at), "use": _use(past, held)}
    else:
        told = {key: (old or {}).get(key) for key in ("countedAt", "use")}
    if not told["use"] and not before.at:
        return None
    return {"part": f"{standing.part:.2f}", "due": f"{standing.due:.2f}", **told}


def _close(hours: float, true: float) -> bool:
    return abs(hours - true) <= LEAST_HOURS + 0.001 * true


def _use(past: Past, held: Mapping[str, float]) -> list[Json]:
    """The use until the whole second that is written."""
    hours = {m: past.board_hours.get(m, 0.0) - n * (past.at % 1) / HOUR for m, n in held.items()}
    return [
        {"model": m, "boardHours": max(0.0, round(hours[m], DIGITS)), "boards": n}
        for m, n in held.items()
        if n or hours[m] >= LEAST_HOURS
    ]


def past_from(status: Mapping[str, Any] | None) -> Past:
    """What a queue used so far, as its status states it."""
    use = (status or {}).get("use") or ()
    return Past(
        from_rfc3339((status or {}).get("countedAt")),
        {entry["model"]: float(entry["boardHours"]) for entry in use},
        {entry["model"]: float(entry["boards"]) for entry in use if entry.get("boards")},
    )
