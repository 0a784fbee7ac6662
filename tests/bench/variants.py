"""Our packer beside FGD on traces that nobody tuned anything for: `python -m tests.bench.variants [name ...]`.

The public pods and nodes, changed: other mixes, other fleets, other sizes. Each variant is one run of each packer.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from berth.bench.names import PolicyName
from berth.bench.openb import Task, run
from berth.bench.trace import Node, Trace, load
from berth.planning.scarcity import WHOLE, Demand
from tests.bench.openb import DATA

SHOWN = ("alloc@100", "alloc@130", "frag_ratio@80", "pods_placed")

Pods = Sequence[Demand]
Variant = tuple[str, Pods, Sequence[Node]]


def variants(default: Trace, restricted: Trace) -> Iterator[Variant]:
    """Names, pods and nodes. `restricted` is gpuspec33, where a third of the pods names models."""
    chance = random.Random(5)
    nodes, pods, third = default.nodes, default.pods, restricted.pods
    bare = [pod for pod in pods if not pod.boards]
    single = [pod for pod in pods if pod.boards == 1]
    several = [pod for pod in pods if pod.boards > 1]
    shares = [pod for pod in single if pod.share < WHOLE]
    boards = [node.model for node in nodes for _ in range(node.boards)]
    yield "2.5 x pods without boards", [*pods, *bare, *chance.choices(bare, k=len(bare) * 3 // 2)], nodes
    yield "no pods without boards", single + several, nodes
    yield "6 x multi-board pods", [*pods, *several * 5], nodes
    yield "15 x multi-board pods", [*pods, *several * 14], nodes
    yield "3 x shared boards", [*pods, *shares * 2], nodes
    yield "shared boards only", shares + bare, nodes
    for percent in (10, 25, 60):
        yield f"{percent} % name one model", named(pods, percent / 100, boards, chance), nodes
    yield "gpuspec33, a third as often", [p if chance.random() < 1 / 3 else with_any(p) for p in third], nodes
    yield "default, 30 % fewer nodes", pods, chance.sample(nodes, 7 * len(nodes) // 10)
    yield "gpuspec33, 30 % fewer nodes", third, chance.sample(nodes, 7 * len(nodes) // 10)
    yield "gpuspec33, half the T4 nodes", third, halved(nodes, "T4")
    yield "gpuspec33, half the G2 nodes", third, halved(nodes, "G2")
    yield "gpuspec33, 80 nodes", third, chance.sample(nodes, 80)
    for number in (1, 2, 3):
        yield f"default, another mix ({number})", remixed(pods, random.Random(number)), nodes
    for number in (1, 2):
        yield f"gpuspec33, another mix ({number})", remixed(third, random.Random(number)), nodes
    yield "default, 1.3 x CPU", [replace(pod, cpu_milli=pod.cpu_milli * 13 // 10) for pod in pods], nodes
    yield "gpuspec33, 1.3 x CPU", [replace(pod, cpu_milli=pod.cpu_milli * 13 // 10) for pod in third], nodes
    yield "default, 2.2 x memory", [replace(pod, memory_mib=pod.memory_mib * 22 // 10) for pod in pods], nodes
    sizes = {share: chance.randint(60, 990) for share in sorted({pod.share for pod in shares})}
    yield "random shares", [replace(pod, share=sizes.get(pod.share, pod.share)) for pod in pods], nodes


def with_any(pod: Demand) -> Demand:
    """The same, whatever the model."""
    return replace(pod, models=frozenset())


def named(pods: Pods, part: float, boards: Sequence[str], chance: random.Random) -> Pods:
    """So many of the pods name one model, the more often the more boards it has; pods of a whole node never do."""
    chosen = [0 < pod.boards < 8 and chance.random() < part for pod in pods]
    return [
        replace(pod, models=frozenset({chance.choice(boards)})) if names else pod
        for pod, names in zip(pods, chosen, strict=True)
    ]


def halved(nodes: Sequence[Node], model: str) -> Sequence[Node]:
    """Every second node of a model gone."""
    return [node for number, node in enumerate(nodes) if node.model != model or number % 2]


def remixed(pods: Pods, chance: random.Random) -> Pods:
    """As many pods of the same kinds, each kind more or less frequent by a random factor."""
    weight = {kind: chance.expovariate(1) for kind in dict.fromkeys(pods)}
    return chance.choices(pods, [weight[pod] for pod in pods], k=len(pods))


def a_task(variant: Variant, policy: PolicyName) -> Task:
    """One run: shuffled, and tuned to 1.3 times the fleet's boards as the public orders are."""
    _, pods, nodes = variant
    chance = random.Random(42)
    limit = 1.3 * WHOLE * sum(node.boards for node in nodes)
    waiting, arrivals, asked = chance.sample(pods, len(pods)), [], 0
    while True:
        pod = waiting.pop() if waiting else chance.choice(pods)
        if asked + pod.milli > limit:
            return Task(42, policy, tuple(chance.sample(nodes, len(nodes))), tuple(arrivals), tuple(pods))
        arrivals.append(pod)
        asked += pod.milli


def main(wanted: Callable[[str], bool]) -> None:
    """Print a row for each variant: FGD's figures, then ours."""
    traces = (
        load(
            DATA / "openb_node_list_gpu_node.csv",
            DATA / f"openb_pod_list_{name}.csv",
            DATA / "orders" / f"{name}.jsonl.gz",
        )
        for name in ("default", "gpuspec33")
    )
    print("| variant |" + "".join(f" {figure} FGD / ours |" for figure in SHOWN))
    print("|---|" + "---|" * len(SHOWN))
    for variant in variants(*traces):
        if wanted(variant[0]):
            theirs, ours = (run(a_task(variant, policy)).figures for policy in (PolicyName.FGD, PolicyName.BERTH))
            cells = "".join(f" {theirs[f]:,.1f} / {ours[f]:,.1f} |" for f in SHOWN)
            print(f"| {variant[0]} |{cells}", flush=True)


if __name__ == "__main__":
    main(lambda name: len(sys.argv) == 1 or any(part in name for part in sys.argv[1:]))
