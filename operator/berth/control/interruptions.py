"""What interrupts a node: the marks that clouds, autoscalers and people leave on it, and what its agent heard.

A mark means that the node goes, or is to be emptied. A node that is only cordoned stays, and so may a candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from berth.control.records import GPUNodeRecord, NodeRecord
from berth.model.nodes import Interruption

DRAIN_ANNOTATION: Final = "berth.dev/drain"  # the time when somebody asked for it; `berth drain` writes it
MAINTENANCE_ANNOTATION: Final = "berth.dev/maintenance"  # the time when it begins
ANNOTATIONS: Final = (DRAIN_ANNOTATION, MAINTENANCE_ANNOTATION)
MAINTENANCE_LEAD_SECONDS = 900.0  # announced weeks ahead: work may use the node until a save and a move need the time

SPOT, TERMINATION, MAINTENANCE, DRAIN = REASONS = "SpotInterruption", "NodeTermination", "Maintenance", "Drain"
"""From the most to the least pressing where nobody states a deadline."""

# By key and value ("": any). None of them says when the node goes: ToBeDeletedByClusterAutoscaler holds the time of the
# mark itself, node-termination-handler's hold the id of an event. Its rebalance-recommendation is there only where
# somebody had it act upon recommendations; the recommendation alone interrupts nothing.
TAINTS: Final = {
    ("karpenter.sh/disrupted", ""): TERMINATION,
    ("karpenter.sh/disruption", "disrupting"): TERMINATION,  # the same, before Karpenter 1.0
    ("aws-node-termination-handler/spot-itn", ""): SPOT,
    ("aws-node-termination-handler/scheduled-maintenance", ""): MAINTENANCE,
    ("aws-node-termination-handler/asg-lifecycle-termination", ""): TERMINATION,
    ("aws-node-termination-handler/rebalance-recommendation", ""): TERMINATION,
    ("ToBeDeletedByClusterAutoscaler", ""): TERMINATION,
    ("cloud.google.com/impending-node-termination", ""): TERMINATION,
    ("remediator.kubernetes.azure.com/unschedulable", ""): TERMINATION,  # of AKS, as the next two
    ("remediator.aks.microsoft.com/unschedulable", ""): TERMINATION,
    ("cloudprovider.azure.microsoft.com/draining", "spot-eviction"): SPOT,
    ("node.kubernetes.io/out-of-service", "nodeshutdown"): TERMINATION,
}

# Conditions that AKS's node-problem-detector sets to True; which event, and when, stands in their message, such as
# "Preempt Scheduled: Mon, 02 Mar 2026 19:01:45 GMT. For more information, see ...".
CONDITIONS: Final = {  # by type: the event that it means where its message names none
    "VMEventScheduled": "",
    "PreemptionScheduled": "Preempt",
    "PreemptScheduled": "Preempt",
    "TerminateScheduled": "Terminate",
    "RebootScheduled": "Reboot",
    "RedeployScheduled": "Redeploy",
}
_ANNOUNCED = re.compile(r"\b(\w+) Scheduled:\s*(\w{3}, \d{1,2} \w{3} \d{4} \d{1,2}:\d\d:\d\d (?:GMT|UTC))?")

# Azure's events by their type. Freeze pauses the machine for some seconds and loses nothing.
AZURE_EVENTS: Final = {
    "Preempt": SPOT,
    "Terminate": TERMINATION,
    "Reboot": MAINTENANCE,
    "Redeploy": MAINTENANCE,
}


def interruption_of(record: NodeRecord, report: GPUNodeRecord | None, now: float) -> Interruption | None:
    """What interrupts a node now; of several the one that comes first."""
    due = [found for found in _found(record, report) if _counts_from(found) <= now]
    return min(due, key=pressing, default=None)


def wakes_at(record: NodeRecord, report: GPUNodeRecord | None, now: float) -> float | None:
    """When what is planned for a node begins to count; None: nothing is, or it counts already."""
    return min((at for at in map(_counts_from, _found(record, report)) if at > now), default=None)


def lost_since(record: NodeRecord) -> float:
    """Since when nobody heard of a node, or its kubelet says that it can't run pods; 0: it is well, or never was."""
    return 0.0 if record.ready else record.unready_since


def unreadable(record: NodeRecord) -> str:
    """What Berth's own annotations on a node say that is no time, in words; "" if nothing."""
    bad = [a for a in ANNOTATIONS if a in record.meta.annotations and not moment(record.meta.annotations[a])]
    return "; ".join(f"{a}: {record.meta.annotations[a]!r} is no time such as 2026-11-27T13:00:00Z" for a in bad)


def reported(status: Any) -> Interruption | None:
    """What an agent wrote into its GPUNode's status; None for what is nothing of the kind."""
    if not isinstance(status, Mapping):
        return None
    reason, source, deadline = (status.get(key) or "" for key in ("reason", "source", "deadline"))
    if reason not in REASONS or not isinstance(source, str) or not isinstance(deadline, str):
        return None
    return Interruption(reason, source, moment(deadline))


def moment(text: str) -> float:
    """A time as RFC 3339 writes it, in seconds since the epoch; 0 for anything else.

    >>> moment("1970-01-01T01:00:10+01:00"), moment("1970-01-02"), moment("soon")
    (10.0, 0.0, 0.0)
    """
    try:
        found = datetime.fromisoformat(text)
        return max(0.0, found.timestamp()) if found.tzinfo is not None else 0.0
    except (ValueError, OverflowError):
        return 0.0


def http_moment(text: str) -> float:
    """A time as RFC 1123 writes it, in seconds since the epoch; 0 for anything else.

    >>> http_moment("Thu, 01 Jan 1970 00:00:10 GMT"), http_moment("")
    (10.0, 0.0)
    """
    try:
        found = parsedate_to_datetime(text)
        return max(0.0, found.timestamp()) if found.tzinfo is not None else 0.0
    except (ValueError, OverflowError, TypeError, IndexError):
        return 0.0


def _found(record: NodeRecord, report: GPUNodeRecord | None) -> Iterator[Interruption]:
    for taint in record.taints:
        reason = TAINTS.get((taint.key, "")) or TAINTS.get((taint.key, taint.value))
        if reason is not None:
            yield Interruption(reason, f"taint {taint.key}")
    for condition, message in record.announced:
        match = _ANNOUNCED.search(message)
        event, date = (match[1], match[2] or "") if match else ("", "")
        reason = AZURE_EVENTS.get(event or CONDITIONS.get(condition, ""))
        if reason is not None:
            yield Interruption(reason, f"condition {condition}", http_moment(date))
    annotations = record.meta.annotations
    if begins := moment(annotations.get(MAINTENANCE_ANNOTATION, "")):
        yield Interruption(MAINTENANCE, f"annotation {MAINTENANCE_ANNOTATION}", begins)
    if moment(annotations.get(DRAIN_ANNOTATION, "")):
        yield Interruption(DRAIN, f"annotation {DRAIN_ANNOTATION}")
    if report is not None and report.interruption is not None:
        yield report.interruption


def _counts_from(found: Interruption) -> float:
    """Maintenance is announced long before it begins; the rest counts as soon as it is known."""
    return found.deadline - MAINTENANCE_LEAD_SECONDS if found.reason == MAINTENANCE and found.deadline else 0.0


def pressing(found: Interruption) -> tuple[bool, float, int, str]:
    """The nearest deadline first, then those who state none, by their reason."""
    place = REASONS.index(found.reason) if found.reason in REASONS else len(REASONS)
    return not found.deadline, found.deadline, place, found.source
