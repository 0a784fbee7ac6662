"""The openb traces (Alibaba cluster-trace-gpu-v2023): nodes, pods and the orders in which pods arrive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from berth.bench.tables import Row, TraceError, lines, rows
from berth.planning.scarcity import WHOLE, Demand

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
ORDER_KEYS = ("seed", "node_perm", "arrivals")


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the trace. `model` is that of all its boards."""

    name: str
    cpu_milli: int
    memory_mib: int
    boards: int
    model: str


@dataclass(frozen=True, slots=True)
class Order:
    """How one seed shuffles the nodes (sorted by name) and in which order it lets the pods (likewise) arrive."""

    seed: int
    nodes: tuple[int, ...]
    arrivals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Nodes and pods sorted by name: a pod is all that it demands. The orders, by seed, tell when each arrives."""

    nodes: tuple[Node, ...]
    pods: tuple[Demand, ...]
    orders: tuple[Order, ...]

    @property
    def capacity_milli(self) -> int:
        """All boards of the fleet, in thousandths of a board."""
        return WHOLE * sum(node.boards for node in self.nodes)


def load(nodes: Path, pods: Path, orders: Path) -> Trace:
    """Read a trace from its three files, gzipped where the name ends in .gz. TraceError says what is wrong where."""
    machines = tuple(sorted(rows(nodes, NODE_COLUMNS, _node), key=lambda node: node.name))
    if not any(node.boards for node in machines):
        raise TraceError(f"{nodes}: lists no node with boards")
    named = sorted(rows(pods, POD_COLUMNS, _pod), key=lambda pod: pod[0])
    trace = Trace(machines, tuple(demand for _, demand in named), tuple(_orders(orders)))
    if not trace.orders:
        raise TraceError(f"{orders}: lists no order")
    for order in trace.orders:
        _check(orders, order, trace)
    return trace


def _node(row: Row) -> Node:
    return Node(row.text("sn"), row.whole("cpu_milli"), row.whole("memory_mib"), row.whole("gpu"), row.text("model"))


def _pod(row: Row) -> tuple[str, Demand]:
    boards, share = row.whole("num_gpu"), row.whole("gpu_milli")
    if share > WHOLE or (boards > 0) != (share > 0):
        raise TraceError(
            f"{row.path}: line {row.line}, column 'gpu_milli': {share} of each of {boards} boards; "
            f"wanted: 1 to {WHOLE} where 'num_gpu' is above 0, else 0"
        )
    models = frozenset(model for model in row.text("gpu_spec").split("|") if model)
    return row.text("name"), Demand(row.whole("cpu_milli"), row.whole("memory_mib"), boards, share, models)


def _orders(path: Path) -> Iterator[Order]:
    for number, line in enumerate(lines(path), 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise TraceError(f"{path}: line {number} is no JSON object: {error}") from error
        missing = [key for key in ORDER_KEYS if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise TraceError(f"{path}: line {number} lacks key {', '.join(map(repr, missing))}")
        if type(entry["seed"]) is not int:
            raise TraceError(f"{path}: line {number}, key 'seed': no whole number")
        for key in ("node_perm", "arrivals"):
            if not isinstance(entry[key], list) or not all(type(value) is int for value in entry[key]):
                raise TraceError(f"{path}: line {number}, key {key!r}: no list of whole numbers")
        yield Order(entry["seed"], tuple(entry["node_perm"]), tuple(entry["arrivals"]))


def _check(path: Path, order: Order, trace: Trace) -> None:
    if sorted(order.nodes) != list(range(len(trace.nodes))):
        raise TraceError(
            f"{path}: seed {order.seed}, key 'node_perm': no permutation of the {len(trace.nodes)} nodes listed"
        )
    if not order.arrivals:
        raise TraceError(f"{path}: seed {order.seed}, key 'arrivals': no pod arrives")
    if not all(0 <= pod < len(trace.pods) for pod in order.arrivals):
        raise TraceError(f"{path}: seed {order.seed}, key 'arrivals': beyond the {len(trace.pods)} pods listed")
