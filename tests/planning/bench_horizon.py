"""How long it takes to plan deferrable jobs: `python -m tests.planning.bench_horizon`, failing above the limit."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from dataclasses import replace

from berth.model.prices import Price, PriceBook
from berth.model.reasons import Reason
from berth.model.workloads import CarbonTerms
from berth.planning.capacity import solved
from berth.planning.carbon import Origin, Outlook
from berth.planning.fleet import Nodes
from berth.planning.horizons import Forecast, Horizons, Kind
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from berth.planning.spells import Sightings
from tests.planning.builders import a_job, a_node

JOBS, POOLS, HOURS = 2000, 9, 96
HOUR = 3600.0
MOST_SECONDS = 1.0
# Dollars an hour on spot and on-demand capacity and kW at work: three models of boards, eight at a time.
MODELS = ((7.8, 24.5, 2.8), (12.3, 40.9, 3.7), (39.3, 98.3, 6.4))


def planned(jobs: int = JOBS, pools: int = POOLS, hours: int = HOURS) -> tuple[float, dict[str, int]]:
    """CPU seconds that all decisions take, forecasts read included, and how many there were of each."""
    chance = random.Random(1)
    seen = [
        Forecast(tuple(chance.uniform(50, 700) for _ in range(hours)), Sightings(chance.random() < 0.6))
        for _ in range(pools)
    ]
    kinds = [Kind((spot,) * pools, (on,) * pools, draw, draw / 8, 0.1, 0.2) for spot, on, draw in MODELS]
    todo = []
    for _ in range(jobs):
        left = chance.uniform(4, hours)
        todo.append((chance.uniform(1, left - 1), left, chance.choice(kinds)))
    start = time.process_time()
    horizons = Horizons(seen, kinds, carbon_price=5.0, step_hours=1.0, polled_hours=1 / 60)
    found: dict[str, int] = {}
    for work, left, kind in todo:
        best = horizons.decide(work, left, kind).best
        found[best.move] = found.get(best.move, 0) + 1
    return time.process_time() - start, found


def deferred(jobs: int = JOBS, regions: int = POOLS, hours: int = HOURS) -> tuple[float, int]:
    """CPU seconds of the operator's plan for as many jobs that may wait, and how many do; nothing is known yet."""
    chance, now = random.Random(2), 480_000 * HOUR
    forecast = (Origin.FORECAST,) * hours
    outlooks = {
        f"r{i}": Outlook(480_000, tuple(chance.uniform(50, 700) for _ in range(hours)), forecast)
        for i in range(regions)
    }
    labels = [{"topology.kubernetes.io/region": region} for region in outlooks]
    nodes = Nodes({f"n{i}": a_node(f"n{i}", labels=labels[i % regions]) for i in range(10 * regions)})
    waiting = []
    for i in range(jobs):
        left = chance.uniform(4, hours) * HOUR
        work = chance.uniform(HOUR, left - HOUR)
        terms = CarbonTerms(budget=0.1)
        job = a_job(f"j{i}", gpus=8, created=now, estimated_seconds=work, deadline=now + left, carbon=terms)
        waiting.append(replace(job, checkpoints=True))
    snapshot = Snapshot(nodes, {}, tuple(waiting), outlooks=outlooks)
    start = time.process_time()
    made = plan(snapshot, Policy(), now + 10)
    return time.process_time() - start, sum(v.reason == Reason.DEFERRED_FOR_CARBON for v in made.verdicts.values())


def on_spot(jobs: int = JOBS, regions: int = POOLS, hours: int = HOURS) -> tuple[float, dict[str, int]]:
    """CPU seconds of the operator's plan for as many jobs with deadlines that may use spot capacity, and what they get.

    Some regions have free spot nodes, and some have lost theirs; no table is known yet.
    """
    chance, now = random.Random(3), 480_000 * HOUR
    spot = {"karpenter.sh/capacity-type": "spot"}
    nodes = {}
    for i in range(regions):
        region = {"topology.kubernetes.io/region": f"r{i}"}
        for j in range(10):
            nodes[f"d{i}-{j}"] = a_node(f"d{i}-{j}", labels=region)
            nodes[f"s{i}-{j}"] = a_node(f"s{i}-{j}", labels={**region, **spot}, ready=i % 3 > 0)
    seen = {(f"r{i}", "H100-80GB"): Sightings(i % 3 > 0, chance.uniform(0, 9)) for i in range(regions)}
    book = PriceBook(tuple(Price("H100", 8 * chance.uniform(0.9, 1.1), f"r{i}") for i in range(regions)))
    waiting = []
    for i in range(jobs):
        left = chance.uniform(4, hours) * HOUR
        work = chance.uniform(HOUR, left - HOUR)
        job = a_job(f"j{i}", gpus=8, created=now, estimated_seconds=work, deadline=now + left)
        waiting.append(replace(job, checkpoints=True))
    snapshot = Snapshot(Nodes(nodes), {}, tuple(waiting), spot=seen)
    solved.cache_clear()
    start = time.process_time()
    made = plan(snapshot, Policy(prices=book), now + 10)
    return time.process_time() - start, dict(Counter(v.reason for v in made.verdicts.values()))


def main() -> int:
    """Print both, the best of three; fails above the limit."""
    seconds, found = min(planned() for _ in range(3))
    told = ", ".join(f"{move}: {count}" for move, count in sorted(found.items()))
    print(f"{JOBS:,} jobs, {POOLS} pools, {HOURS} h of forecasts: {seconds:.2f} s (limit {MOST_SECONDS:g} s); {told}")
    whole, waits = min(deferred() for _ in range(3))
    print(f"the same in a plan of the operator's: {whole:.2f} s (limit {MOST_SECONDS:g} s); {waits} wait")
    spot, got = min((on_spot() for _ in range(3)), key=lambda found: found[0])
    told = ", ".join(f"{reason}: {count}" for reason, count in sorted(got.items()))
    print(f"the same with deadlines on spot capacity: {spot:.2f} s (limit {MOST_SECONDS:g} s); {told}")
    return max(seconds, whole, spot) > MOST_SECONDS


if __name__ == "__main__":
    sys.exit(main())
