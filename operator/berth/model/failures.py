"""Attempts that end badly, and attempts that get on no more: what is asked for then, and what is remembered."""

from __future__ import annotations

from dataclasses import dataclass

HUNG = "Hung"  # what a crash is called whose worker had to be stopped, since it made no steps


@dataclass(frozen=True, slots=True)
class Restart:
    """What is to be done when an attempt of a job ends badly, as its user says."""

    most: int = 3  # restarts after crashes, in all
    backoff_seconds: float = 10.0  # before the first; doubled for each that follows in vain
    hang_seconds: float | None = None  # without progress until it is restarted; None: by its own pace; inf: never


@dataclass(frozen=True, slots=True)
class Crash:
    """An attempt that ended by a worker of its own."""

    attempt: int
    at: float  # seconds since the epoch
    node: str = ""  # where that worker was; "": on several nodes, or nobody knows
    exit_code: int | None = None
    reason: str = ""  # "OOMKilled", the signal's name, or HUNG

    def is_like(self, other: Crash) -> bool:
        """Whether both ended in the same way."""
        return (self.exit_code, self.reason) == (other.exit_code, other.reason)


@dataclass(frozen=True, slots=True)
class Failures:
    """How often attempts of a job ended badly."""

    restarts: int = 0  # after crashes: they count against `Restart.most`
    hangs: int = 0  # attempts that were stopped, since they made no steps
    row: int = 0  # attempts that ended in vain, one after the other
    step: int | None = None  # last step of the newest checkpoint when the latest of them ended
    last: tuple[Crash, ...] = ()  # the latest, oldest first

    @property
    def hangs_in_a_row(self) -> int:
        """How many of the latest ended by a hang, one after the other."""
        others = (i for i, crash in enumerate(reversed(self.last)) if crash.reason != HUNG)
        return next(others, len(self.last))


@dataclass(frozen=True, slots=True)
class Pace:
    """How an attempt gets on, by what it reports."""

    attempt: int = 0
    advanced_at: float = 0.0  # when it last did, in seconds since the epoch; 0: never
    usual_seconds: float | None = None  # between two reports of progress; None: there were too few to tell
    longest_seconds: float = 0.0
