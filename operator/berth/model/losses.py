"""What stopping an attempt cost: the work since its last durable checkpoint, by the reason it was stopped for."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Loss:
    """What one reason cost a job."""

    reason: str
    attempts: int  # that it ended
    gpu_seconds: float


@dataclass(frozen=True, slots=True)
class Losses:
    """What a job lost so far, each reason once, in the order in which they came first."""

    by_reason: tuple[Loss, ...] = ()

    @property
    def gpu_seconds(self) -> float:
        """All of it."""
        return sum(loss.gpu_seconds for loss in self.by_reason)

    def of(self, reason: str) -> Loss:
        """What that reason cost.

        >>> Losses().of("Drain")
        Loss(reason='Drain', attempts=0, gpu_seconds=0.0)
        """
        return next((loss for loss in self.by_reason if loss.reason == reason), Loss(reason, 0, 0.0))

    def and_one(self, reason: str, gpu_seconds: float) -> Losses:
        """After one more attempt ended for that reason.

        >>> Losses().and_one("Drain", 3.0).and_one("Preempted", 1.0).and_one("Drain", 2.0).of("Drain")
        Loss(reason='Drain', attempts=2, gpu_seconds=5.0)
        """
        old = self.of(reason)
        new = replace(old, attempts=old.attempts + 1, gpu_seconds=old.gpu_seconds + gpu_seconds)
        if not old.attempts:
            return Losses((*self.by_reason, new))
        return Losses(tuple(new if loss.reason == reason else loss for loss in self.by_reason))


NO_LOSSES = Losses()
