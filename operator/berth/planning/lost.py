"""What is lost when running work is stopped."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from berth.model.gpus import MODELS
from berth.model.workloads import Kind, Placement, Workload
from berth.planning.options import boards_of


def lost_seconds(w: Workload, now: float) -> float:
    """How long all of a gang's boards have worked since its last durable checkpoint, or its start if there is none.

    A replica of a service loses nothing: what it has answered is answered.
    """
    if w.ref.kind is Kind.INFERENCE_SERVICE or not w.started_at:
        return 0.0
    return max(0.0, now - max(w.started_at, w.saved_at))


def boards_held(placement: Placement) -> float:
    """How many boards all members of a gang hold; an instance is a part of one."""
    device = placement.device
    model = next((model for model in MODELS if model.name == device.model), None)
    each = boards_of(device, model) if model else Fraction(device.count)
    return float(each * len(placement.nodes))


def lost_gpu_seconds(w: Workload, now: float) -> float:
    """What the live attempt, which is over now, did in vain: it may have saved after it was told to stop."""
    if w.attempt is None:
        return 0.0
    return boards_held(w.attempt.placement) * lost_seconds(w, w.attempt.stopping_since or now)


def with_loss(w: Workload, reason: str, now: float) -> Workload:
    """The workload once what its live attempt lost is accounted to the reason that ended it."""
    return replace(w, losses=w.losses.and_one(reason, lost_gpu_seconds(w, now)))
