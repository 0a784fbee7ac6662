"""What is lost when running work is stopped."""

from __future__ import annotations

from berth.model.workloads import Kind, Workload


def lost_seconds(w: Workload, now: float) -> float:
    """How long all of a gang's boards have worked since its last durable checkpoint, or its start if there is none.

    A replica of a service loses nothing: what it has answered is answered.
    """
    if w.ref.kind is Kind.INFERENCE_SERVICE or not w.started_at:
        return 0.0
    return max(0.0, now - max(w.started_at, w.saved_at))
