"""What a live attempt of a TrainingJob needs next, from its pods and its Job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from berth.model.failures import HUNG
from berth.model.reasons import Reason, Verdict
from berth.model.workloads import (
    Attempt,
    Demand,
    Placement,
    Pod,
    PodPhase,
    PodShape,
    Request,
    RunPhase,
    StopPolicy,
    Workload,
)
from berth.planning.actions import Action, AskToSave, Finish, MakeAttempt, Move, Pin, Release, Replace, Stop
from berth.planning.capacity import CHEAPER, cheaper_for
from berth.planning.cohorts import stopped
from berth.planning.deferring import PAUSED, pause_of
from berth.planning.failures import fails, judge
from berth.planning.hangs import stop_if_hung
from berth.planning.idling import seen_to
from berth.planning.interruptions import NODE_LOST, Leaving, is_out_of_reach, leave, lost, threat_to
from berth.planning.moves import avoiding, relocate
from berth.planning.provisioning import NOT_PROVIDED, fell_short, keep_for, overdue, pool_named, waits
from berth.planning.rescue import AT_RISK, risk_to
from berth.planning.saving import SAVE_AND_GO_ON, wanted
from berth.planning.scratch import Scratch
from berth.planning.verdicts import PLACED, where

ENDED = (PodPhase.SUCCEEDED, PodPhase.FAILED)
ON_NODES = (PodPhase.PINNED, PodPhase.BOUND, PodPhase.READY)
FINAL = ("MaxRuntimeExceeded", HUNG)  # why a job is stopped that has failed
WORKER_EVICTED = "WorkerEvicted"  # the reason of a gang of which someone else told a member to end
WAITING_FOR_PODS = "WaitingForPods"  # the reason of a gang that was whole and lacks a member


@dataclass(slots=True)
class Live:
    """An attempt with the pod that stands for each member, and the members whose recorded node has no room."""

    workload: Workload
    attempt: Attempt
    pods: tuple[Pod, ...]
    members: dict[int, Pod]
    displaced: list[int] = field(default_factory=list)

    @property
    def request(self) -> Request:
        """What is asked for; of a spec made unreadable since the admission, only the device is known."""
        return self.workload.request or Request(len(self.attempt.placement.nodes), Demand(), PodShape())

    @property
    def count(self) -> int:
        """How many members it has; of an attempt whose record was lost, how many its spec asks for."""
        return len(self.attempt.placement.nodes) or self.request.workers

    @property
    def done(self) -> frozenset[int]:
        """The ranks that are known to have ended well and undisturbed: a pod that was told to end proves nothing."""
        return self.attempt.done | {p.index for p in self.pods if p.phase is PodPhase.SUCCEEDED and not p.terminating}

    @property
    def undone(self) -> list[Pod]:
        """The pods of the members that have not ended well."""
        done = self.done
        return [pod for i, pod in self.members.items() if i not in done]

    @property
    def missing(self) -> list[int]:
        """The ranks that have no pod, and that have not ended well."""
        done = self.done
        return [i for i in range(self.count) if i not in self.members and i not in done]

    @property
    def was_whole(self) -> bool:
        """Whether all members were there before: only then are any pinned."""
        gathered = any(p.phase in (*ON_NODES, PodPhase.SUCCEEDED) for p in self.members.values())
        return gathered or bool(self.attempt.done) or self.workload.started_at > 0


def live(w: Workload, attempt: Attempt) -> Live:
    """An attempt with the pod that stands for each member: one that goes on rather than one that ends, the newest."""
    pods = tuple(p for p in w.pods if p.attempt == attempt.number)
    members: dict[int, Pod] = {}
    for pod in sorted(pods, key=lambda p: (p.terminating, p.phase is PodPhase.FAILED, -p.created, p.uid)):
        if pod.index < len(attempt.placement.nodes):
            members.setdefault(pod.index, pod)
    return Live(w, attempt, pods, members)


def remembered(w: Workload, now: float) -> Attempt | None:
    """The live attempt with what its record must keep, since pods that go leave no trace: who ended well, who lacks."""
    attempt = w.attempt
    if attempt is None or attempt.stopping:
        return attempt
    run = live(w, attempt)
    lacks = attempt.phase in (RunPhase.ABSENT, RunPhase.RUNNING) and run.was_whole and run.missing
    return replace(
        attempt,
        done=run.done,
        missing_since=(attempt.missing_since or now) if lacks else 0.0,
        spec_digest=attempt.spec_digest or w.spec_digest,
    )


def claim(s: Scratch, run: Live) -> None:
    """Charge an attempt to its queue, and reserve the room of each member that no pod holds yet.

    A member whose node can't take it is displaced: the node has gone bad, or someone else's pod took the room.
    """
    placement = run.attempt.placement
    s.charge(run.workload.queue, placement.device, len(placement.nodes))
    if run.attempt.stopping or run.workload.deleting or run.attempt.phase in (RunPhase.SUCCEEDED, RunPhase.FAILED):
        return
    done = run.done
    if placement.pool:
        unbound = [i for i in range(run.count) if i not in done and not _is_bound(run.members.get(i))]
        keep_for(s, run.request, placement, len(unbound))
        return
    for index, node in enumerate(placement.nodes):
        pod = run.members.get(index)
        if index in done or (pod is not None and _holds_its_room(pod, node)):
            continue
        room = s.field(run.request.shape, placement.device, s.avoided(run.workload))
        i = room.pool.index.get(node) if room else None
        if room is None or i is None or not room.capacity[i]:
            run.displaced.append(index)
        else:
            s.ledger.take(node, room.needs)


def advance(s: Scratch, run: Live) -> None:
    """Decide the next step of an attempt."""
    w, attempt = run.workload, run.attempt
    if attempt.phase is RunPhase.SUCCEEDED and run.count and run.done.issuperset(range(run.count)):
        message = f"all {run.count} workers ended well"
        s.decide(w.ref, Verdict("Succeeded", message), Finish(w.ref, attempt.number, "Succeeded", "Succeeded", message))
    elif attempt.stopping:
        _end(s, run)
    elif attempt.phase is RunPhase.FAILED or fails(run.pods):
        _failed(s, run)
    elif attempt.phase is RunPhase.SUCCEEDED:
        _unproven(s, run)
    elif w.suspend:
        _stop(s, run, "Suspended", "spec.suspend is true: the workers are asked to stop")
    elif s.quota.cohorts.stopped_by(w.queue)[1] is StopPolicy.HOLD_AND_DRAIN:
        _stop(s, run, Reason.QUEUE_STOPPED, f"{stopped(s.quota.cohorts, w.queue)}; the workers are asked to stop")
    elif _overdue(s, w, attempt):
        _stop(s, run, "MaxRuntimeExceeded", f"ran for longer than spec.maxRuntime ({w.max_runtime_seconds:g} s)")
    elif why := _broken(run):
        _stop(s, run, "Requeued", f"{why}: planned anew", not_before=s.now)
    elif ousted := _ousted(run):
        what = f"worker {ousted.index} on {ousted.node or 'no node'} was evicted or deleted, and its gang needs it"
        _stop(s, run, WORKER_EVICTED, f"{what}: planned anew", not_before=s.now)
    elif gone := lost(s, run.undone):
        what = f"{gone.node}, which worker {gone.index} is on, is gone or not heard of"
        _stop(s, run, NODE_LOST, f"{what}: its gang goes on elsewhere from its last checkpoint", not_before=s.now)
    elif threat := threat_to(s, w, run.undone):
        leave(s, w, attempt, threat.leaving)
    elif attempt.phase is RunPhase.ABSENT:
        if not _late(s, run):
            s.decide(w.ref, _running(s, run), MakeAttempt(w.ref, attempt.number, attempt.placement))
    elif not stop_if_hung(s, w, attempt, run.pods):
        if (risk := risk_to(s, w, attempt)) and not run.missing:
            leave(s, w, attempt, Leaving(AT_RISK, risk, "go on where capacity stays"))
        elif (why := pause_of(s, w, attempt)) and not run.missing:
            leave(s, w, attempt, Leaving(PAUSED, why, "go on then"))
        elif (why := cheaper_for(s, w, attempt)) and not run.missing:
            leave(s, w, attempt, Leaving(CHEAPER, why, "go on there"))
        elif (asked := wanted(w, attempt, s.now)) and not run.missing:
            s.decide(w.ref, _running(s, run), AskToSave(w.ref, asked, SAVE_AND_GO_ON))
        elif run.missing or run.displaced or not seen_to(s, w, attempt, run.undone):
            _run(s, run)


def _broken(run: Live) -> str:
    """What someone else did to an attempt that can't go on as it is; "" for nothing."""
    w, attempt = run.workload, run.attempt
    if len(attempt.placement.nodes) not in run.request.sizes:  # the spec changes only while suspended, if briefly
        return f"spec.workers is {run.request.workers}, but {run.count} were placed"
    if attempt.spec_digest and w.spec_digest and attempt.spec_digest != w.spec_digest:
        return "the job was suspended and resumed with another spec (template, gpus, parallelism, topology or queue)"
    if attempt.phase is RunPhase.SUSPENDED:
        return "its Job was suspended by someone else"
    if attempt.phase is RunPhase.ABSENT and run.was_whole:
        return "its Job was deleted"
    return ""


def _ousted(run: Live) -> Pod | None:
    """The first member that someone told to end, as a drain does: its Job would count an exit with 0 as its end."""
    ending = [p for p in run.pods if p.terminating and p.phase in (PodPhase.BOUND, PodPhase.READY, PodPhase.SUCCEEDED)]
    done = run.done
    return min((p for p in ending if p.index not in done), key=lambda p: (p.index, p.uid), default=None)


def _unproven(s: Scratch, run: Live) -> None:
    """A complete Job, but not of every member is it known that it ended by itself.

    One that was told to end, by a drain for instance, saves and exits with 0, which its Job counts as its end.
    """
    if any(p.phase not in ENDED and not p.terminating for p in run.members.values()):
        s.decide(run.workload.ref, _running(s, run))  # pods are seen later than their Job: soon they will have ended
        return
    first = min(set(range(run.count)) - run.done, default=0)
    why = f"its Job is complete, but worker {first} was evicted or deleted, or its pod is gone"
    _stop(s, run, "Requeued", f"{why}: it may have ended early; planned anew", not_before=s.now)


def _is_bound(pod: Pod | None) -> bool:
    return pod is not None and pod.phase in (PodPhase.BOUND, PodPhase.READY, PodPhase.SUCCEEDED)


def _holds_its_room(pod: Pod, node: str) -> bool:
    """Whether a member's room is counted by its pod, or needed no more.

    A failed member keeps its reservation while the attempt goes on, since its Job may replace the pod; so does one
    whose record has moved on from the node that its pod is stuck on.
    """
    if pod.phase is PodPhase.PINNED:
        return pod.node == node
    return pod.phase in (PodPhase.BOUND, PodPhase.READY, PodPhase.SUCCEEDED)


def _end(s: Scratch, run: Live) -> None:
    """An attempt that is being stopped: once no pod is left, its room is free."""
    w, attempt = run.workload, run.attempt
    message = w.verdict.message if w.verdict and w.verdict.reason == attempt.stopping else "the workers are to stop"
    verdict = Verdict(attempt.stopping, message)
    if attempt.phase is RunPhase.RUNNING:
        again = Stop(w.ref, attempt.number, attempt.stopping, message, w.avoid, w.not_before)
        s.decide(w.ref, verdict, again)
        return
    done: tuple[Action, ...] = ()
    if all(pod.phase in ENDED or is_out_of_reach(s, pod) for pod in run.pods):
        if attempt.stopping in FINAL:
            done = (Finish(w.ref, attempt.number, "Failed", attempt.stopping, message),)
        else:
            done = (Release(w.ref, attempt.number, attempt.stopping, message),)
    s.decide(w.ref, verdict, *done)


def _failed(s: Scratch, run: Live) -> None:
    w, attempt = run.workload, run.attempt
    ended = (p for p in run.pods if p.phase is PodPhase.FAILED and not p.terminating)  # by themselves: none deleted it
    failed = sorted(ended, key=lambda p: (p.created, p.index, p.uid))
    refused = [p for p in failed if p.refusal]
    if refused:
        nodes = sorted({p.node for p in refused if p.node})
        why = f"{', '.join(nodes) or 'a node'} refused worker {refused[0].index} ({refused[0].refusal})"
        _stop(s, run, "Requeued", f"{why}: planned anew elsewhere", nodes, s.now)
        return
    if not failed:
        message = "its Job failed though no worker did: a pod was deleted, or its node is gone; planned anew"
        _stop(s, run, "Requeued", message, not_before=s.now + s.policy.avoid_seconds)
        return
    judge(s, w, attempt, run.pods)


def _overdue(s: Scratch, w: Workload, attempt: Attempt) -> bool:
    if w.max_runtime_seconds is None or attempt.placement.pool:
        return False
    end = (w.started_at or attempt.admitted_at) + w.max_runtime_seconds
    s.wake(end)
    return end <= s.now


def _late(s: Scratch, run: Live) -> bool:
    """Give up an attempt whose pods are not all there in time; say whether it was given up."""
    timeout, pause = s.policy.gate_timeout_seconds, s.policy.avoid_seconds
    since = (run.attempt.missing_since or s.now) if run.was_whole else run.attempt.admitted_at
    s.wake(since + timeout)
    if since + timeout > s.now:
        return False
    there = f"{run.count - len(run.missing)} of {run.count} pods were there after {timeout:g} s"
    message = f"{there}: tried again in {pause:g} s; see the events of its Job"
    _stop(s, run, "Requeued", message, not_before=s.now + pause)
    return True


def _run(s: Scratch, run: Live) -> None:
    """Pins for a gang that is all there; another node for members whose own is gone or does not take them."""
    w, attempt = run.workload, run.attempt
    missing = run.missing
    if missing and _late(s, run):
        return
    placement = _as_bound(run)
    if placement.pool and (why := overdue(s, attempt)):
        fell = fell_short(s, w, placement.pool)
        message = f"{why}: they are taken back, and the job is planned anew"
        stop = Stop(w.ref, attempt.number, NOT_PROVIDED, message, w.avoid, s.now, shortfalls=fell)
        s.decide(w.ref, Verdict(NOT_PROVIDED, message), stop)
        return
    stuck = {} if placement.pool else _stuck(s, run)
    avoid = w.avoid
    moving = {i for i, pod in stuck.items() if pod.node == placement.nodes[i]}
    bad = sorted({stuck[i].node for i in moving})
    if bad:
        avoid = avoiding(s, w, bad)
    moving |= {i for i in run.displaced if not missing and run.members[i].phase is PodPhase.GATED}
    replacing = [Replace(w.ref, p.name, p.uid, p.message or "it stays unbound") for _, p in sorted(stuck.items())]
    actions: list[Action] = []
    verdict = _running(s, run)
    if moving:
        avoided = {node for node, until in avoid if until > s.now} | s.suspected.keys()
        moved = relocate(s, run.request, placement, moving, avoided)
        if moved is None:
            why = f"worker {min(moving)} can't run on {placement.nodes[min(moving)]} any more, and no other node fits"
            _stop(s, run, "Requeued", f"{why}: planned anew", bad, s.now)
            return
        placement, verdict = moved, Verdict(PLACED, f"{_words(s, moved)}: moved, since a node did not take its worker")
    elif placement != attempt.placement:
        late = "a worker was bound just before it was to be moved"
        came = f"nodes of pool {attempt.placement.pool} came after {s.now - attempt.admitted_at:.0f} s"
        verdict = Verdict(PLACED, f"{_words(s, placement)}: {came if attempt.placement.pool else late}")
    if placement != attempt.placement:
        actions.append(Move(w.ref, attempt.number, placement, avoid, verdict))
    pins = [] if missing else _pins(s, run, placement)
    s.decide(w.ref, verdict, *actions, *replacing, *pins)


def _as_bound(run: Live) -> Placement:
    """The recorded placement, with the nodes that members are bound to in truth: a Move may have come too late.

    Those of members that wait for a pool's nodes are taken in once all are bound.
    """
    placement = run.attempt.placement
    nodes = list(placement.nodes)
    for i, pod in run.members.items():
        ended = placement.pool and pod.phase is PodPhase.SUCCEEDED
        if (pod.phase in (PodPhase.BOUND, PodPhase.READY) or ended) and not pod.terminating and pod.node:
            nodes[i] = pod.node
    if placement.pool and not all(node for i, node in enumerate(nodes) if i not in run.done):
        return placement
    known = next(iter(filter(None, nodes)), "")  # of one that ended, and whose pod is gone, nobody asks where it was
    return replace(placement, nodes=tuple(node or known for node in nodes), pool="")


def _stuck(s: Scratch, run: Live) -> dict[int, Pod]:
    """The members whose pods are pinned, and that kube-scheduler has not bound in time."""
    found = {}
    for i, pod in run.members.items():
        if pod.phase is PodPhase.PINNED and not pod.terminating and pod.pinned_at:
            end = pod.pinned_at + s.policy.bind_timeout_seconds
            s.wake(end)
            if end <= s.now:
                found[i] = pod
    return found


def _pins(s: Scratch, run: Live, placement: Placement) -> list[Action]:
    pool = pool_named(s, placement.pool)
    return [
        Pin(run.workload.ref, pod.name, pod.uid, placement.nodes[i], pool.labels if pool else ())
        for i, pod in sorted(run.members.items())
        if pod.phase is PodPhase.GATED and not pod.terminating
    ]


def _stop(
    s: Scratch, run: Live, reason: str, message: str, refused: list[str] | None = None, not_before: float = 0.0
) -> None:
    w = run.workload
    avoid = avoiding(s, w, refused) if refused else w.avoid
    s.decide(w.ref, Verdict(reason, message), Stop(w.ref, run.attempt.number, reason, message, avoid, not_before))


def _running(s: Scratch, run: Live) -> Verdict:
    """The verdict of the admission as long as it holds, else one of its placement alone."""
    if run.was_whole and run.missing and run.attempt.phase is not RunPhase.SUCCEEDED:
        timeout, count = s.policy.gate_timeout_seconds, run.count
        there = f"{count - len(run.missing)} of {count} members are there, worker {run.missing[0]} has no pod"
        why = f"see the events of its Job; planned anew if it stays so for {timeout:g} s"
        return Verdict(WAITING_FOR_PODS, f"{there}: {why}")
    last = run.workload.verdict
    if run.attempt.placement.pool and pool_named(s, run.attempt.placement.pool):
        return waits(s, run.attempt, sum(map(_is_bound, run.members.values())), last)
    return last if last and last.reason == PLACED else Verdict(PLACED, _words(s, run.attempt.placement))


def _words(s: Scratch, placement: Placement) -> str:
    pool = s.fleet.pools.get(placement.device.model)
    return where(pool, placement.nodes) if pool else f"{len(placement.nodes)} workers on nodes that are gone"
