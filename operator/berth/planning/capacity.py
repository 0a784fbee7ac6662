"""Spot capacity, on demand, or neither yet: what a job with a deadline runs on, by its expected cost to the end.

The program of docs/decisions/0018-spot-and-carbon.md on what a cluster shows. Spot capacity is there for a job where
its whole gang fits on it now; how long it stays, and stays away, is learned by region and board model. Prices are taken
in shares of the least price on demand, and times are rounded, so that jobs share tables.
See docs/decisions/0032-one-program-for-deadlines.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import takewhile
from math import ceil

from berth.model.energy import kilograms
from berth.model.prices import CapacityType
from berth.model.reasons import Reason
from berth.model.workloads import Attempt, Device, Kind, Market, Request, Spot, Workload
from berth.planning.estimates import STARTING_SECONDS
from berth.planning.horizon import Horizon, Problem
from berth.planning.markets import (
    MARGIN_SECONDS,
    SAVING_SECONDS,
    boards_in,
    intensity,
    kilowatts_of,
    moving_usd,
    prices_of,
    remaining_seconds,
    usd_of,
    within_price,
)
from berth.planning.packing import pack
from berth.planning.scratch import Aim, Offer, Scratch, Wait, gang_of, linked_boards
from berth.planning.spells import AGE_WHEN_FOUND_HOURS, Habits, Sightings
from berth.planning.spot import Job, Place, Pool, decide

CHEAPER = "CheaperCapacity"  # the reason of gangs that leave capacity on demand, since spot capacity costs less
HOUR = 3600.0
LOOK_SECONDS = 600.0  # from one decision to the next at most, and how often spot capacity is expected to change
LEFT_HOURS = (24.0, 96.0, 384.0)  # until deadlines, that tables are made for
SLACK_HOURS = (4.0, 24.0)  # the same of slack: more is not worth more
MOST_STEPS, MOST_STEPS_OF_MANY = 288, 96  # of a table; where there are several regions
MOST_UNITS = 6  # that a step is cut into
START_STEP_HOURS = 0.01  # to multiples of which starts are rounded up
SHARE_DIGITS = 3  # of prices


def aim_of(s: Scratch, w: Workload) -> Aim | None:
    """What a job is to run on now; None: its deadline, or the fleet, leaves nothing to choose."""
    if w.ref.uid not in s.aims:
        s.aims[w.ref.uid] = None  # it is not asked again, should it break
        s.aims[w.ref.uid] = _aim(s, w)
    return s.aims[w.ref.uid]


def aimed(s: Scratch, w: Workload) -> Workload:
    """A pending job that keeps to the spot capacity which it is to run on."""
    aim = aim_of(s, w)
    if aim is None or not aim.spot or w.request is None:
        return w
    markets = tuple((True, region) for region in aim.spot)
    return replace(w, request=replace(w.request, shape=replace(w.request.shape, markets=markets)))


def spot_wait(s: Scratch, w: Workload) -> Wait | None:
    """Until when a pending job waits for spot capacity; None: it does not.

    A plan that has seen nothing of spot capacity, as one of another program than the operator, or of an operator that
    has just started, keeps to what was written down.
    """
    before = w.verdict if _may_choose(w) else None
    if not s.snapshot.spot and before is not None and before.reason == Reason.WAITING_FOR_SPOT and before.until:
        return Wait(before.until, before.message, Reason.WAITING_FOR_SPOT) if before.until > s.now else None
    aim = aim_of(s, w)
    if aim is None or not aim.waits:
        return None
    s.wake(s.now + LOOK_SECONDS)
    told = f"spot capacity is not free: {_words(s, aim)} (spec.spot Never: now)"
    return Wait(aim.last, told, Reason.WAITING_FOR_SPOT)


def taken_text(s: Scratch, w: Workload) -> str:
    """Why a pending job that is to go to spot capacity does not: others took it in this plan; "" where it does."""
    aim = s.aims.get(w.ref.uid)
    if aim is None or not aim.spot or w.request is None:
        return ""
    device, request = aim.device, w.request.smallest
    fits = any(_fits(s, w, request, device, region) for region in aim.spot)
    return "" if fits else f"spot capacity went to others: {_words(s, aim)}"


def cheaper_for(s: Scratch, w: Workload, attempt: Attempt) -> str:
    """Why a gang leaves capacity on demand for spot capacity, in words; "" where it stays.

    One goes at a time, and none where another is on its way or waits: what is free is free for one.
    """
    if not w.started_at or _on_spot(s, attempt) or (aim := aim_of(s, w)) is None:
        return ""
    s.wake(s.now + LOOK_SECONDS)
    rested = w.started_at + s.policy.consolidation.min_runtime_seconds
    s.wake(rested)
    if not aim.spot or rested > s.now or _spoken_for(s, w).intersection(aim.spot):
        return ""
    s.movers.add(w.ref.uid)
    return f"spot capacity is free: {_words(s, aim)}"


def _aim(s: Scratch, w: Workload) -> Aim | None:
    request, deadline = w.request, w.deadline
    if request is None or deadline is None or not _may_choose(w) or (seconds := remaining_seconds(s, w)) is None:
        return None
    device = _device(s, w, request)
    offer = _offer(s, w, request.at(w.size) if w.attempt else request.smallest, device) if device else None
    if device is None or offer is None:
        return None
    start = (SAVING_SECONDS + STARTING_SECONDS + s.policy.consolidation.restart_seconds) / HOUR
    start = ceil(start / START_STEP_HOURS - 1e-9) * START_STEP_HOURS
    left = (deadline - STARTING_SECONDS - MARGIN_SECONDS - s.now) / HOUR
    runs = Place(0, CapacityType.ON_DEMAND) if w.attempt else None
    job = Job(seconds / HOUR, left, start, start, runs, 0 if runs else None)
    horizon = _horizon(offer.pools, start, left, job.slack_hours)
    options = [option.place for option in decide(job, offer.pools, 0.0, horizon, LOOK_SECONDS / HOUR).options]
    better = takewhile(lambda place: place is not None and place.capacity is CapacityType.SPOT, options)
    spot = tuple(offer.regions[place.pool] for place in better if place is not None)
    last = s.now + (job.slack_hours - start) * HOUR - LOOK_SECONDS
    return Aim(spot, options[0] is None, device, offer.spot_usd, offer.on_demand_usd, offer.odds, last)


def _may_choose(w: Workload) -> bool:
    """Whether a job's terms leave anything to choose: it loses little by an interruption, and says by when it ends."""
    by_budget = w.carbon is not None and w.carbon.budget is not None
    asks = w.ref.kind is Kind.TRAINING_JOB and w.deadline is not None and w.checkpoints and not by_budget
    return asks and w.request is not None and w.request.shape.spot is Spot.ALLOW


def _offer(s: Scratch, w: Workload, request: Request, device: Device) -> Offer | None:
    """What capacity there is; the same for jobs that ask for the same and move nothing, with carbon terms: about."""
    hours = int((remaining_seconds(s, w) or 0.0) // HOUR).bit_length() if w.carbon else 0
    fetches = any(moving_usd(s, w, region) >= 0.005 for region, _ in s.snapshot.spot)
    key = request, device, s.avoided(w), w.carbon, hours, w.ref.uid if fetches else ""
    if key not in s.offers:
        rates = _rates(s, w, request, device)
        on_demand = min((rate for (spot, _), rate in rates.items() if not spot), default=0.0)
        spot = {region: rate for (is_spot, region), rate in rates.items() if is_spot}
        s.offers[key] = None
        if spot and on_demand > 0:
            seen = [_seen(s, w, request, device, region) for region in spot]
            shares = [round(rate / on_demand, SHARE_DIGITS) for rate in spot.values()]
            pools = tuple(Pool(share, 1.0, 0.0, 0.0, each) for share, each in zip(shares, seen, strict=True))
            cheapest = min(range(len(shares)), key=shares.__getitem__)
            odds = seen[cheapest].habits.availability
            s.offers[key] = Offer(tuple(spot), pools, min(spot.values()), on_demand, odds)
    return s.offers[key]


def _device(s: Scratch, w: Workload, request: Request) -> Device | None:
    """What a job runs on, or would; None where several board models would do, since spot capacity of any is as good.

    Nor is there anything to wait for where more nodes can be asked for.
    """
    options = s.options(request.demand, request.tensor)
    models = {w.attempt.placement.device.model} if w.attempt else {option.device.model for option in options}
    if len(models) != 1 or any(pool.model in models for pool in s.policy.pools):
        return None
    return w.attempt.placement.device if w.attempt else options[0].device


def _rates(s: Scratch, w: Workload, request: Request, device: Device) -> dict[Market, float]:
    """Dollars an hour of the job in each market, carbon included; of those of spot nodes that are away, too."""
    shape, model = request.shape, s.model(device.model)
    prices = dict(prices_of(s, shape, device))
    for region, name in s.snapshot.spot:
        if name == device.model and (not shape.markets or (True, region) in shape.markets):
            prices.setdefault((True, region), s.policy.prices.usd_per_hour(model, region, CapacityType.SPOT))
    boards = boards_in(s, device, request.workers)
    kilowatts = kilowatts_of(model, boards)
    found = {}
    for (spot, region), price in sorted(prices.items()):
        kilos = kilograms(kilowatts, intensity(s, w, region)) if w.carbon else 0.0
        found[spot, region] = boards * price + usd_of(w.carbon, kilos) + moving_usd(s, w, region)
    return found


def _seen(s: Scratch, w: Workload, request: Request, device: Device, region: str) -> Sightings:
    """A region's spot capacity as it is for a job: there where its gang fits."""
    there, known = _fits(s, w, request, device, region), s.snapshot.spot.get((region, device.model))
    if known is None:
        return Sightings(there)
    return known if known.up == there else replace(known, up=there, age_hours=AGE_WHEN_FOUND_HOURS)


def _fits(s: Scratch, w: Workload, request: Request, device: Device, region: str) -> bool:
    shape = replace(request.shape, markets=((True, region),))
    field = s.field(shape, device, s.avoided(w), linked_boards(request, device))
    if field is None or field.total < request.workers:
        return False
    return pack(field, gang_of(request, device, s.fleet.levels, request.workers)) is not None


def _on_spot(s: Scratch, attempt: Attempt) -> bool:
    nodes = (s.fleet.nodes.get(name) for name in attempt.placement.nodes)
    return any(node.spot for node in nodes if node is not None)


def _spoken_for(s: Scratch, mover: Workload) -> set[str]:
    """The regions whose spot capacity others are to go to: those that wait, and those that were asked to leave."""
    if s.spoken_for is None:
        s.spoken_for = {}
        for w in s.snapshot.workloads:
            if w.finished or w.deleting or w.suspend:
                continue
            asked = w.save_request
            leaves = w.attempt is not None and (
                w.attempt.stopping == CHEAPER
                or (asked is not None and (asked.attempt, asked.reason) == (w.attempt.number, CHEAPER))
            )
            aim = aim_of(s, within_price(s, w)) if w.attempt is None or leaves else None
            s.spoken_for[w.ref.uid] = aim.spot if aim is not None else ()
    moving = [aim.spot for uid in s.movers if (aim := s.aims.get(uid)) is not None]
    asked_for = [spot for uid, spot in s.spoken_for.items() if uid != mover.ref.uid]
    return {region for spot in (*moving, *asked_for) for region in spot}


def _horizon(pools: Sequence[Pool], start: float, left: float, slack: float) -> Horizon:
    """The table for a job with so many hours left, and so many of slack."""
    hours = next((hours for hours in LEFT_HOURS if left <= hours), LEFT_HOURS[-1])
    most = next((hours for hours in SLACK_HOURS if slack <= hours), SLACK_HOURS[-1])
    return solved(tuple(p.spot_dollars for p in pools), tuple(p.seen.habits for p in pools), start, hours, most)


@lru_cache(maxsize=16)  # some MiB each
def solved(spot: tuple[float, ...], habits: tuple[Habits, ...], start: float, left: float, slack: float) -> Horizon:
    """The table of jobs with at most so many hours left and of slack; those used lately are kept."""
    pools = len(spot)
    step = max(LOOK_SECONDS / HOUR, left / (MOST_STEPS if pools == 1 else MOST_STEPS_OF_MANY))
    steps = ceil(left / step - 1e-9)
    return Horizon(
        Problem(
            step_hours=step,
            slack_hours=slack,
            restart_hours=start,
            move_hours=start,
            spot=tuple((share,) * steps for share in spot),
            on_demand=((1.0,) * steps,) * pools,
            start_relief=((0.0,) * steps,) * pools,
            habits=habits,
            together=pools,
            most_units=MOST_UNITS,
        )
    )


def _words(s: Scratch, aim: Aim) -> str:
    """What it costs, and for how long it can be waited for."""
    at = datetime.fromtimestamp(aim.last, UTC).strftime("%H:%M UTC" if aim.last - s.now < 24 * HOUR else "%a %H:%M UTC")
    price = f"${aim.spot_usd:.2f} instead of ${aim.on_demand_usd:.2f} an hour"
    return f"{price}, there {100 * aim.odds:.0f} % of the time; on demand from {at} at the latest"
