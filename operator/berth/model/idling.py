"""Workloads whose boards do next to nothing: what their user wants done about it, and what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class IdleAction(StrEnum):
    """What is done once boards were idle for long enough."""

    REPORT = "Report"  # said in status, an event and a metric
    WARN = "Warn"  # said as a warning
    SUSPEND = "Suspend"  # the members are asked to save, then the job is suspended


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When boards count as idle, and what is done then, as a job's user says."""

    action: IdleAction = IdleAction.REPORT
    after_seconds: float = 1800.0  # an evaluation, a download or a compilation is over by then
    below: float = 0.05  # of the time, 0 to 1; agents tell utilization to 5 %


@dataclass(frozen=True, slots=True)
class Idle:
    """The boards of the live attempt are idle."""

    since: float  # seconds since the epoch
    told: bool = False  # for long enough, and its user was told so
