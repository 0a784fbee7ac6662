"""Nodes that are being drained: what of Berth's work is still on them, and what it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from berth.api.convert import least_replicas
from berth.control.apply import RESOURCE_OF
from berth.control.interruptions import DRAIN_ANNOTATION, moment
from berth.control.ports import NODES, PODS, Api, Clock, Json, NotFound, Refused, Unavailable
from berth.control.progress import live_attempt
from berth.control.records import ATTEMPT_LABEL, KIND_LABEL, NAME_LABEL, UID_LABEL, whole_number
from berth.control.status import to_rfc3339
from berth.model.workloads import CHECKPOINT_REQUESTED, Kind

LOOK_SECONDS = 2.0
LOOKS = 2  # one after the other that must find nothing: a pod may have been bound just before the node was cordoned
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
RIGHTS = "draining needs the rights to get and patch nodes, list pods, and get trainingjobs and inferenceservices"

Raw = Mapping[str, Any]
Tell = Callable[[str], None]


class Who(NamedTuple):
    """A workload of Berth's."""

    kind: Kind
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        """Such as "TrainingJob team/llm"."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is on the nodes at one moment."""

    doing: Mapping[Who, str]  # what all that was seen there does, or where it is now
    pods: Mapping[str, int]  # of Berth's workloads, by node
    others: Mapping[str, Sequence[str]]  # pods that Berth does not move, by node

    @property
    def left(self) -> int:
        """Pods of Berth's workloads on all of the nodes."""
        return sum(self.pods.values())


@dataclass
class Drain:
    """Some nodes that are to be empty of Berth's work."""

    api: Api
    nodes: Sequence[str]
    clock: Clock
    tell: Tell
    busy: Tell = lambda text: None  # says what it waits for, in passing
    _seen: dict[Who, None] = field(default_factory=dict)  # that was on one of the nodes
    _told: dict[str, str] = field(default_factory=dict)  # what was told last, by whom or what it is about

    async def begin(self) -> None:
        """Cordon the nodes and mark them; all of them have to be there. Raises ApiError."""
        for raw in [await _node(self.api, name) for name in self.nodes]:
            name, since = raw["metadata"]["name"], _drained_since(raw)
            if since and (raw.get("spec") or {}).get("unschedulable"):
                self.tell(f"{name}: is being drained since {since}")
                continue
            marks = {DRAIN_ANNOTATION: since or to_rfc3339(self.clock())}
            body = {"metadata": {"annotations": marks}, "spec": {"unschedulable": True}}
            await _allowed(self.api.merge(NODES, "", name, body))
            self.tell(f"{name}: cordoned, and Berth is asked to empty it")

    async def follow(self, seconds: float | None) -> bool:
        """Tell what changes until nothing of Berth's is left, or until the time is over; whether nothing is."""
        end = inf if seconds is None else self.clock() + seconds
        empty = 0
        while True:
            try:
                sight = await self.look()
                self._report(sight)
                empty = 0 if sight.left else empty + 1
                if empty >= LOOKS:
                    self._conclude(sight)
                    return True
                self.busy(f"pods of Berth's work on {', '.join(self.nodes)}: {sight.left}")
            except Unavailable as error:
                self._once("api", f"the API server does not answer, asking on: {error}")
            if self.clock() >= end:
                return False
            await asyncio.sleep(min(LOOK_SECONDS, end - self.clock()))

    async def look(self) -> Sight:
        """What is there now. Raises ApiError."""
        pods: dict[str, list[Json]] = {}
        for name in self.nodes:
            listed = await _allowed(self.api.list(PODS, fields=f"spec.nodeName={name}"))
            pods[name] = [pod for pod in listed["items"] if not _has_ended(pod)]
        ours = {name: [(who, pod) for pod in found if (who := _owner(pod))] for name, found in pods.items()}
        here = [one for found in ours.values() for one in found]
        self._seen |= {who: None for who, _ in here}
        asked = [self._doing(who, [pod for owner, pod in here if owner == who]) for who in self._seen]
        doing = dict(zip(self._seen, await asyncio.gather(*asked), strict=True))
        others = {n: sorted(map(_name, filter(_is_foreign, found))) for n, found in pods.items()}
        return Sight(doing, {name: len(found) for name, found in ours.items()}, others)

    async def _doing(self, who: Who, here: Sequence[Raw]) -> str:
        try:
            raw = await _allowed(self.api.get(RESOURCE_OF[who.kind], who.namespace, who.name))
        except NotFound:
            raw = {"metadata": {"uid": ""}}
        if raw["metadata"]["uid"] != who.uid:
            return "is deleted, and its pods end" if here else "is deleted"
        return training(raw, here) if who.kind is Kind.TRAINING_JOB else serving(raw, here)

    def _report(self, sight: Sight) -> None:
        for who, text in sight.doing.items():
            self._once(str(who), f"{who}: {text}")
        for node, names in sight.others.items():
            if names:
                self._once(f"others on {node}", f"{node}: Berth does not move {', '.join(names)}")

    def _conclude(self, sight: Sight) -> None:
        for node in self.nodes:
            self.tell(f"{node}: safe, nothing of Berth's work is left on it")
            if sight.others[node]:
                count = len(sight.others[node])
                pods = "1 pod of others is" if count == 1 else f"{count} pods of others are"
                self.tell(f"{node}: {pods} still there: `kubectl drain {node} --ignore-daemonsets` evicts them")

    def _once(self, about: str, text: str) -> None:
        if self._told.get(about) != text:
            self._told[about] = text
            self.tell(text)


async def undo(api: Api, nodes: Sequence[str], tell: Tell) -> None:
    """Take mark and cordon back from nodes that are drained. Raises ApiError."""
    for raw in [await _node(api, name) for name in nodes]:
        name = raw["metadata"]["name"]
        if DRAIN_ANNOTATION not in (raw["metadata"].get("annotations") or {}):
            tell(
                f"{name}: is not being drained by Berth, left as it is (`kubectl uncordon {name}` takes a cordon back)"
            )
            continue
        body = {"metadata": {"annotations": {DRAIN_ANNOTATION: None}}, "spec": {"unschedulable": False}}
        await _allowed(api.merge(NODES, "", name, body))
        tell(f"{name}: takes work again")


def training(raw: Raw, here: Sequence[Raw]) -> str:
    """What a TrainingJob does that has these pods on the nodes, or had some."""
    status = raw.get("status") or {}
    if not here:
        return _elsewhere(status)
    pods = f"{len(here)} {'pod' if len(here) == 1 else 'pods'} here"
    live = live_attempt(raw)
    if all(whole_number(pod["metadata"]["labels"].get(ATTEMPT_LABEL)) != live for pod in here):
        return f"{_elsewhere(status)}; {pods} of an attempt that is over"
    if status.get("stopping"):
        return f"stops ({status['stopping']}), {pods}: it may still save"
    asked = status.get("saveRequest") or {}
    if asked and asked["attempt"] == live and asked["reason"] != CHECKPOINT_REQUESTED:
        if (status.get("checkpoint") or {}).get("answers") == asked["id"]:
            return f"has saved, and is stopped next, {pods}"
        return f"saves, as it was asked at {asked['time']}, {pods}"
    return f"runs, {pods}: the operator has not asked it to leave yet"


def _elsewhere(status: Raw) -> str:
    if status.get("finishedAt"):
        return f"has ended ({status.get('state')})"
    if placement := status.get("placement"):
        verb = "runs" if status.get("state") == "Running" else "starts"
        return f"{verb} on {placement.get('summary') or 'other nodes'}"
    if status.get("state") == "Suspended":
        return "is suspended"
    return f"waits for a place: {_verdict(status)}"


def serving(raw: Raw, here: Sequence[Raw]) -> str:
    """What an InferenceService does that has these replicas on the nodes, or had some."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    ready, least = status.get("readyReplicas") or 0, least_replicas(spec)
    if not here:
        return f"{ready} of {spec.get('replicas', 1)} replicas are ready, none here"
    replicas = f"{len(here)} {'replica' if len(here) == 1 else 'replicas'} here"
    if all(pod["metadata"].get("deletionTimestamp") for pod in here):
        return f"{replicas}, told to end"
    if ready <= least:
        remedy = "make room for one, or lower spec.availability.minAvailable"
        budget = f"its disruption budget, which needs {least} ready of {ready}"
        return f"{replicas}: {budget}, holds it up until another is ready: {remedy}"
    return f"{replicas}: they leave as far as there is room elsewhere: {_verdict(status)}"


def _verdict(status: Raw) -> str:
    return str((status.get("verdict") or {}).get("message") or "the operator has said nothing of it yet")


async def _node(api: Api, name: str) -> Json:
    try:
        return await _allowed(api.get(NODES, "", name))
    except NotFound as error:
        raise NotFound(f"there is no node {name}: `kubectl get nodes` lists them; none was changed") from error


async def _allowed(answer: Any) -> Json:
    try:
        found: Json = await answer
        return found
    except Refused as error:
        raise Refused(f"{error}\n{RIGHTS} (the chart's ClusterRole berth-drain has them)") from error


def _drained_since(node: Raw) -> str:
    """Since when a node is drained, as it states it; "" if it states no time."""
    since = str((node["metadata"].get("annotations") or {}).get(DRAIN_ANNOTATION) or "")
    return since if moment(since) else ""


def _owner(pod: Raw) -> Who | None:
    labels = pod["metadata"].get("labels") or {}
    if labels.get(KIND_LABEL) not in set(Kind) or not labels.get(NAME_LABEL) or not labels.get(UID_LABEL):
        return None
    return Who(Kind(labels[KIND_LABEL]), pod["metadata"]["namespace"], labels[NAME_LABEL], labels[UID_LABEL])


def _is_foreign(pod: Raw) -> bool:
    """Whether a pod is neither Berth's nor one that a node always has."""
    owners = {owner.get("kind") for owner in pod["metadata"].get("ownerReferences") or ()}
    always = "DaemonSet" in owners or MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {})
    return not always and _owner(pod) is None


def _name(pod: Raw) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _has_ended(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
