"""Laying out boards anew, as a part of the plan: what would give a waiting workload its place.

Only boards that nobody holds change, and of those only where all pods of the node are accounted for. A job whose gang
would fit on the fleet as it will be waits for just that, so that one re-layout serves as many as it can; else the
cheapest boards are laid out by which the whole gang fits, tried on a copy, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from berth.model.reasons import Reason, Verdict
from berth.model.workloads import Device, Request, Workload
from berth.planning.admission import choices
from berth.planning.ahead import Ahead
from berth.planning.forecast import smallest
from berth.planning.makeroom import Layouts, offers_for, packed
from berth.planning.options import Option
from berth.planning.pursuit import words_of
from berth.planning.supply import SECONDS

MOST_BEGUN = 8  # re-layouts begun by one plan: each is planned on the fleet that the one before leaves
ASSUMED_HOURS = 1.0  # how long a job runs that does not say: what a cheaper device saves, weighed against laying it out


@dataclass(frozen=True, slots=True)
class Found:
    """A way to place a gang by laying out boards: the cheapest of an option."""

    option: Option
    offers: Layouts
    usd: float  # for the time that it runs, and for the offers
    coming: bool = False  # it counts on boards that are being laid out already


@dataclass(frozen=True, slots=True)
class Promise:
    """A place on the fleet as it will be."""

    device: Device
    verdict: Verdict


def provide(ahead: Ahead, w: Workload, request: Request, device: Device | None = None) -> Promise | None:
    """Have a workload wait for boards that are being laid out, or begin to lay some out; None where that is no help.

    `device` is the only one that will do; None: any that satisfies the request.
    """
    found = cheapest(ahead, w, request, device)
    if found is None:
        return None
    if found.offers:
        if len(ahead.begun) + len(found.offers) > max(MOST_BEGUN, len(found.offers)):
            return None
        ahead.commit(w, found.offers)
    field, nodes = packed(ahead.scratch, w, request, found.option.device)
    if field is None or nodes is None:
        raise ValueError(f"a gang that was to fit does not: {w.ref.name}")
    if not any(ahead.record(node) for node in nodes):
        return None  # it fits as things are, at a higher price: the next plan weighs that anew
    for node in nodes:
        ahead.promise(node, field.needs)
    ahead.scratch.charge(w.queue, found.option.device, request.workers)
    return Promise(found.option.device, _waits(ahead, request, sorted(set(nodes))))


def better_later(ahead: Ahead, w: Workload, request: Request, now: Option) -> bool:
    """Whether a cheaper device, once boards are laid out for it, is worth more than one that is free now.

    The cheaper one has to save, over the time that the job runs, what laying it out and waiting for it costs.
    """
    cheaper = any(o.usd_per_hour < now.usd_per_hour for o in ahead.options(request))
    if not cheaper or not ahead.weighed or not (ahead.under_way or ahead.able):
        return False
    ahead.weighed -= 1
    fresh = Ahead(ahead.s)  # of what this plan has taken so far
    found = cheapest(fresh, w, request)
    if found is None or found.option == now or not (found.coming or found.offers):
        return False  # what fits already was there to choose, and costs more where prices differ by market
    delay = now.usd_per_hour * request.workers * _delay(fresh, w, request, found) / 3600
    return found.usd + delay < _running(w, request, now)


def possible(ahead: Ahead, request: Request) -> bool:
    """Whether boards could be laid out for a request, now or later."""
    return bool(ahead.options(request) or hindrance(ahead, request))


def hindrance(ahead: Ahead, request: Request) -> str:
    """Why boards that might be laid out for a request are left alone for now; "" where none are."""
    for model, (until, why) in sorted(ahead.later.items(), key=lambda item: item[1]):
        if smallest(ahead.s.model(model), request.demand):
            return f"{why}: tried again within {ceil((until - ahead.s.now) / 60)} min"
    return ""


def cheapest(ahead: Ahead, w: Workload, request: Request, device: Device | None = None) -> Found | None:
    """The cheapest option by which the whole gang fits on the fleet as it will be, its re-layouts included.

    Where it fits on what is being laid out already, nothing more is laid out for it, be that a little cheaper.
    """
    if not ahead.under_way and not ahead.able:
        return None
    tried = choices(ahead.scratch, w, request, options=ahead.options(request))
    options = [c.option for c in tried if c.reason is None and device in (None, c.option.device)]
    fitting = [found for option in options if (found := _as_it_will_be(ahead, w, request, option)) is not None]
    coming = [found for found in fitting if found.coming]
    if not coming and len(ahead.begun) < MOST_BEGUN:
        known = {found.option for found in fitting}
        rest = (_with_offers(ahead, w, request, option) for option in options if option not in known)
        fitting += [found for found in rest if found is not None]
    return min(coming or fitting, key=lambda found: found.usd, default=None)


def _as_it_will_be(ahead: Ahead, w: Workload, request: Request, option: Option) -> Found | None:
    _, nodes = packed(ahead.scratch, w, request, option.device)
    if nodes is None:
        return None
    return Found(option, (), _running(w, request, option), any(ahead.record(node) for node in nodes))


def _with_offers(ahead: Ahead, w: Workload, request: Request, option: Option) -> Found | None:
    """The least that has to be laid out for the gang to fit with this device."""
    key = (request, option.device, ahead.s.avoided(w), w.queue)
    if ahead.hopeless(key):
        return None
    offers = offers_for(ahead, w, request, option.device)
    if offers is None:
        ahead.give_up(key)
        return None
    return Found(option, offers, _running(w, request, option) + sum(offer.usd for offer, _ in offers))


def _running(w: Workload, request: Request, option: Option) -> float:
    return option.usd_per_hour * request.workers * _hours(w)


def _hours(w: Workload) -> float:
    return w.max_runtime_seconds / 3600 if w.max_runtime_seconds else ASSUMED_HOURS


def _delay(ahead: Ahead, w: Workload, request: Request, found: Found) -> float:
    """Seconds until the boards are there."""
    if found.offers:
        return max(offer.seconds for offer, _ in found.offers)
    _, nodes = packed(ahead.scratch, w, request, found.option.device)
    return max((_seconds_left(ahead, name) for name in nodes or ()), default=0.0)


def _seconds_left(ahead: Ahead, name: str) -> float:
    relayout = ahead.record(name)
    return max(0.0, SECONDS[relayout.way] - (ahead.s.now - relayout.tried)) if relayout else 0.0


def _waits(ahead: Ahead, request: Request, nodes: list[str]) -> Verdict:
    """What a workload waits for, for how long, and what it costs."""
    parts, usd = [], 0.0
    for name in nodes:
        relayout = ahead.record(name)
        if relayout is not None:
            parts.append(f"{name} ({words_of(relayout)})")
            usd += relayout.usd
    about = max(10, round(max(_seconds_left(ahead, name) for name in nodes) / 10) * 10)
    message = f"waits for {', '.join(parts)} to be laid out: about {about} s, at a price of ${usd:.2f}"
    return Verdict(Reason.WAITING_FOR_REPARTITION, message, None, request.workers)
