"""Where the same boards cost least: on spot capacity or on demand, in which region, carbon and interruptions included.

A *market* is the nodes of a pool that cost alike. A gang goes to the cheapest markets in which it fits as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, expm1, inf

from berth.model.energy import board_watts, drawn_watts, kilograms
from berth.model.gpus import BoardModel
from berth.model.prices import BUSY, CapacityType
from berth.model.workloads import Attempt, CarbonTerms, Device, Kind, Market, PodShape, Request, Workload
from berth.planning.carbon import WORLD_GRAMS
from berth.planning.estimates import STARTING_SECONDS, doubled
from berth.planning.interval import HOUR, SPOT, daly
from berth.planning.lost import lost_seconds
from berth.planning.options import Option, boards_of
from berth.planning.scratch import Scratch

USUAL_SECONDS = 3600.0  # that a job is taken to run where nobody knows better
USUAL_SAVE_SECONDS = 30.0  # the same of a save
SAVING_SECONDS = 60.0  # that a gang which is asked to save works in vain, at most
MOST_DOUBLINGS = 10
MOST_EXPONENT = 50.0  # beyond, work without checkpoints never ends on spot capacity
MARGIN_SHARE, MARGIN_SECONDS = 0.1, 300.0  # of a run's length, and at least: kept free before deadlines


@dataclass(frozen=True, slots=True)
class Cost:
    """What an hour of a member costs in a market."""

    market: Market
    usd: float  # for its boards
    kilograms: float
    carbon_usd: float  # what these are worth
    overhead: float = 1.0  # by which interruptions lengthen the work
    moving_usd: float = 0.0  # its part of what it costs to fetch the checkpoint from another region

    @property
    def total(self) -> float:
        """In dollars for an hour of work."""
        return inf if self.overhead == inf else (self.usd + self.carbon_usd) * self.overhead + self.moving_usd


def prices_of(s: Scratch, shape: PodShape, device: Device) -> Mapping[Market, float]:
    """Dollars for an hour of a board in each market in which some node admits pods of this shape, whatever its room."""
    key = shape, device.model
    if key not in s.prices:
        pool, book = s.fleet.pools.get(device.model), s.policy.prices
        found = pool.markets(replace(shape, requests=())) if pool else ()
        s.prices[key] = {
            (spot, region): book.usd_per_hour(
                s.model(device.model), region, CapacityType.SPOT if spot else CapacityType.ON_DEMAND
            )
            for spot, region in found
        }
    return s.prices[key]


def least_usd(s: Scratch, request: Request, option: Option) -> float:
    """Dollars for an hour of all members where they cost least."""
    prices = prices_of(s, request.shape, option.device).values()
    return min(prices, default=s.model(option.device.model).usd_per_hour) * float(option.boards) * request.workers


def within_price(s: Scratch, w: Workload) -> Workload:
    """A workload that keeps to the markets which are cheap enough for it."""
    if w.max_usd_per_hour is None or w.request is None:
        return w
    request, cheap, dear = w.request.smallest, set[Market](), False
    for option in s.options(request.demand, request.tensor):
        for market, usd in prices_of(s, request.shape, option.device).items():
            if usd * float(option.boards) * request.workers <= w.max_usd_per_hour:
                cheap.add(market)
            else:
                dear = True
    if not dear or not cheap:
        return w
    return replace(w, request=replace(w.request, shape=replace(w.request.shape, markets=tuple(sorted(cheap)))))


def differ(s: Scratch, w: Workload, request: Request, options: Sequence[Option]) -> bool:
    """Whether it may matter to a job in which market it runs."""
    known = [prices_of(s, request.shape, option.device) for option in options]
    markets = {market for prices in known for market in prices}
    if len(markets) < 2:
        return False
    return w.carbon is not None or any(spot for spot, _ in markets) or any(len({*p.values()}) > 1 for p in known)


def costs(s: Scratch, w: Workload, request: Request, option: Option) -> list[Cost]:
    """What each market costs, the best first."""
    prices = prices_of(s, request.shape, option.device)
    found = [cost_in(s, w, request, option, market, price) for market, price in prices.items()]
    return sorted(found, key=lambda cost: (*_rank(w.carbon, cost, found), cost.market))


def cost_in(s: Scratch, w: Workload, request: Request, option: Option, market: Market, usd_per_board: float) -> Cost:
    """What an hour of a member costs in a market where a board costs so much."""
    spot, region = market
    model, boards = s.model(option.device.model), float(option.boards)
    kilos = kilograms(kilowatts_of(model, boards), intensity(s, w, region)) if w.carbon else 0.0
    rate = s.snapshot.spot_rates.get((region, model.name), SPOT.per_second)
    overhead = _overhead(s, w, rate * request.workers) if spot else 1.0
    moving = moving_usd(s, w, region) / request.workers
    return Cost(market, boards * usd_per_board, kilos, usd_of(w.carbon, kilos), overhead, moving)


def ranked(s: Scratch, w: Workload, request: Request, options: Sequence[Option]) -> list[tuple[Option, PodShape]]:
    """Each option with the markets that it may use, the cheapest first; the same option later with dearer ones too."""
    found = []
    for i, option in enumerate(options):
        for rank, markets in _steps(w.carbon, costs(s, w, request, option), request.shape.markets):
            found.append((rank, i, option, replace(request.shape, markets=markets)))
    return [(option, shape) for _, _, option, shape in sorted(found, key=lambda entry: entry[:2])]


def market_text(s: Scratch, w: Workload, request: Request, option: Option, nodes: Sequence[str]) -> str:
    """Where a gang went of markets that differ, or to spot capacity, and at what price, in words; else ""."""
    used = {(node.spot, node.region) for name in nodes if (node := s.fleet.nodes.get(name)) is not None}
    on_spot = any(spot for spot, _ in used)
    if not on_spot and not differ(s, w, request, [option]):
        return ""
    every = costs(s, w, request, option)
    if not on_spot and len({round(cost.total, 4) for cost in every}) < 2:
        return ""
    mine = [cost for cost in every if cost.market in used]
    others = [cost for cost in every if cost.market not in used]
    here = ", ".join(map(cost_text, mine))
    return f"{here} (else {'; '.join(map(cost_text, others[:3]))})" if others else here


def intensity(s: Scratch, w: Workload, region: str) -> float:
    """The mean g/kWh of a run that begins now."""
    outlook = s.snapshot.outlooks.get(region)
    if outlook is None:
        return WORLD_GRAMS
    seconds = remaining_seconds(s, w) or USUAL_SECONDS
    return outlook.curve.grams([(s.now, s.now + seconds)]) / (seconds / HOUR)


def kilowatts_of(model: BoardModel, boards: float) -> float:
    """What boards at work draw, with their hosts and the building."""
    return drawn_watts(boards, board_watts(model, BUSY)) / 1000


def usd_of(carbon: CarbonTerms | None, kilos: float) -> float:
    """What these kilograms are worth to a job."""
    return kilos * (carbon.usd_per_tonne or 0.0) / 1000 if carbon else 0.0


def moving_usd(s: Scratch, w: Workload, region: str) -> float:
    """What a job pays to fetch its last checkpoint from the region where it ran, for each hour that it has left."""
    home = w.usage.bought[-1].region if w.usage.bought else ""
    if not home or region in ("", home):
        return 0.0
    hours = (remaining_seconds(s, w) or USUAL_SECONDS) / HOUR
    return w.saved_bytes / 1e9 * s.policy.prices.egress_usd_per_gb / hours


def remaining_seconds(s: Scratch, w: Workload) -> float | None:
    """For how long a job has yet to work, at most as far as anybody knows; None: nobody does."""
    total = s.estimates.run_seconds(w, at_most=True)
    if total is None or total == inf:
        return None
    left = max(total - w.worked_seconds, 60.0)
    if w.attempt is None or not w.started_at:
        return left
    elapsed = max(0.0, s.now - w.started_at)
    return w.expected_end - s.now if w.expected_end > s.now else doubled(left, elapsed) - elapsed


def lost_by_leaving(s: Scratch, w: Workload, attempt: Attempt) -> float:
    """The seconds of work that a gang loses which is asked to save, and stopped."""
    return SAVING_SECONDS if attempt.number == w.listens else lost_seconds(w, s.now)


def margin_seconds(seconds: float) -> float:
    """What is kept free before a deadline by a run of so many seconds: images are loaded, and some take longer."""
    return STARTING_SECONDS + max(MARGIN_SECONDS, MARGIN_SHARE * seconds)


def boards_in(s: Scratch, device: Device, members: int) -> float:
    """The boards of a gang."""
    return float(boards_of(device, s.model(device.model))) * members


def _rank(carbon: CarbonTerms | None, cost: Cost, every: Sequence[Cost]) -> tuple[float, float]:
    """By dollars; within a budget, by carbon."""
    if carbon is None or carbon.budget is None:
        return round(cost.total, 4), 0.0
    least = min(other.total for other in every)
    within = cost.total <= least * (1 + carbon.budget) + 1e-9
    return (0.0, round(cost.kilograms, 4)) if within else (round(cost.total, 4), 0.0)


def _steps(
    carbon: CarbonTerms | None, every: Sequence[Cost], whole: tuple[Market, ...]
) -> Iterator[tuple[tuple[float, float], tuple[Market, ...]]]:
    """The best markets, then these and the next best, and so on to all of them."""
    ranks = [_rank(carbon, cost, every) for cost in every]
    for i, rank in enumerate(ranks):
        if i + 1 == len(ranks):
            yield rank, whole
        elif ranks[i + 1] != rank:
            yield rank, tuple(sorted(cost.market for cost in every[: i + 1]))


def _overhead(s: Scratch, w: Workload, rate: float) -> float:
    """By how much that many interruptions a second lengthen work, after Daly; without end where a deadline is at stake.

    Work goes on from its last save, and from the start where it saves nothing. Of work that nobody knows the length of,
    each attempt that was not the last doubles what is expected: so it does not begin on spot capacity for ever. Of a
    service, only the boards count that idle while another replica starts.
    """
    seconds = remaining_seconds(s, w) or USUAL_SECONDS * 2 ** min(w.attempts_made, MOST_DOUBLINGS)
    restart = s.policy.consolidation.restart_seconds
    if w.ref.kind is Kind.INFERENCE_SERVICE:
        return 1.0 + rate * restart
    save = w.save_seconds or USUAL_SAVE_SECONDS
    interval = daly(save, 1 / rate)
    again = restart + interval / 2 if w.checkpoints else restart + seconds
    aim = s.aims.get(w.ref.uid)
    if aim is not None and not aim.spot and not aim.waits:
        return inf
    if aim is None and w.deadline is not None and s.now + seconds + margin_seconds(seconds) + 2 * again > w.deadline:
        return inf
    length, stalls = (interval, save) if w.checkpoints else (seconds, 0.0)
    starts, works = (min(rate * part, MOST_EXPONENT) for part in (restart, length + stalls))
    return exp(starts) * expm1(works) / (rate * length)


def cost_text(cost: Cost) -> str:
    """What an hour of a member costs where, in words."""
    spot, region = cost.market
    where = f"{'spot' if spot else 'on demand'}{f' in {region}' if region else ''}"
    emits = f" and {cost.kilograms:.2f} kg CO2e" if cost.kilograms else ""
    often = f", {100 * (cost.overhead - 1):.0f} % more for interruptions" if 1 < cost.overhead < inf else ""
    moving = f", ${cost.moving_usd:.2f} to fetch its checkpoint" if cost.moving_usd >= 0.005 else ""
    late = ", too risky for the deadline" if cost.overhead == inf else ""
    return f"{where} ${cost.usd:.2f}{emits} an hour a worker{often}{moving}{late}"
