"""Gangs that a person asks to save at once, and to go on."""

from __future__ import annotations

from berth.model.workloads import CHECKPOINT_REQUESTED, Attempt, SaveRequest, Workload

SAVE_AND_GO_ON = "somebody asked for a checkpoint: the workers are asked to save, and go on"


def wanted(w: Workload, attempt: Attempt, now: float) -> SaveRequest | None:
    """What a person asked of a gang, and it was not asked yet; None: nothing, or nobody of it asks for requests.

    What was asked before this attempt was admitted was asked of another one. A request of any reason that is made
    after the person's serves as well.
    """
    if attempt.number != w.listens or w.save_wanted_at < attempt.admitted_at or not w.save_wanted_at:
        return None
    name, last = request_id(attempt.number, w.save_wanted_at), w.save_request
    if last is not None and (last.id == name or last.at >= w.save_wanted_at):
        return None
    return SaveRequest(name, attempt.number, CHECKPOINT_REQUESTED, "", now)


def request_id(attempt: int, wanted_at: float) -> str:
    """The id of the request that a person made at that moment, the same however often it is planned.

    >>> request_id(2, 1767225600.0)
    '2-asked-1767225600'
    """
    return f"{attempt}-asked-{int(wanted_at)}"
