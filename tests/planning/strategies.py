"""Random small clusters and workloads."""

from __future__ import annotations

from hypothesis import strategies as st

from berth.model.nodes import Node, Taint
from berth.model.workloads import PodShape, Queue, Toleration, Workload
from tests.planning.builders import a_job, a_node, a_service, shape

MODELS = ("H100-80GB", "H100-80GB", "H100-80GB", "A100-80GB", "L40S")
PROFILES = ("1g.10gb", "2g.20gb", "3g.40gb")
TAINT = Taint("team", "red", "NoSchedule")


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    """A node of any kind that matters: model, boards and instances, CPU, place, taints."""
    board = draw(st.sampled_from(MODELS))
    labels = {"zone": draw(st.sampled_from(("z1", "z1", "z2"))), "rack": draw(st.sampled_from(("r1", "r2")))}
    if draw(st.booleans()):
        labels["nvlink"] = draw(st.sampled_from(("c1", "c2")))
    if draw(st.integers(0, 4)) == 4:
        del labels["rack"]
    mig = {p: draw(st.integers(0, 3)) for p in PROFILES} if board != "L40S" and draw(st.booleans()) else {}
    return a_node(
        name,
        board=board,
        gpus=draw(st.sampled_from((8, 4, 2, 1, 0))),
        mig=mig,
        cpu=draw(st.sampled_from((64, 8, 2))),
        pods=draw(st.sampled_from((110, 3, 1))),
        labels=labels,
        taints=(TAINT,) if draw(st.integers(0, 5)) == 5 else (),
        ready=draw(st.integers(0, 9)) < 9,
    )


def clusters(most: int = 6) -> st.SearchStrategy[list[Node]]:
    """Two nodes and up to `most`."""
    return st.integers(2, most).flatmap(lambda n: st.tuples(*(nodes(f"n{i}") for i in range(n))).map(list))


def shapes() -> st.SearchStrategy[PodShape]:
    """What members ask besides GPUs."""
    return st.builds(
        lambda cpu, tolerant: shape(cpu=cpu, tolerations=(Toleration("team", "Exists"),) if tolerant else ()),
        st.sampled_from((0, 1, 4)),
        st.booleans(),
    )


@st.composite
def workloads(draw: st.DrawFn, name: str, queues: tuple[str, ...] = ("default",)) -> Workload:
    """A pending job or a new service."""
    demand = draw(
        st.sampled_from(
            (
                {"gpus": 1},
                {"gpus": 1, "models": ("H100", "A100")},
                {"gpus": 2},
                {"gpus": 4},
                {"profile": "1g.10gb"},
                {"profile": "3g.40gb"},
                {"memory_gib": 9},
                {"memory_gib": 18},
            )
        )
    )
    more = {
        **demand,
        "pod": draw(shapes()),
        "priority": draw(st.integers(0, 2)),
        "created": float(draw(st.integers(0, 3))),
        "queue": draw(st.sampled_from(queues)),
    }
    if draw(st.integers(0, 3)) == 3:
        return a_service(name, replicas=draw(st.integers(1, 3)), **more)
    workers = draw(st.integers(1, 5))
    if "gpus" in demand:
        more["tensor"] = draw(st.sampled_from((1, demand["gpus"], demand["gpus"] * (2 if workers % 2 == 0 else 1))))
    level = draw(st.sampled_from(("", "rack", "zone", "nvlink", "node")))
    more["required" if draw(st.booleans()) else "preferred"] = level
    return a_job(name, workers=workers, **more)


def many_workloads(most: int = 6, queues: tuple[str, ...] = ("default",)) -> st.SearchStrategy[list[Workload]]:
    """Two workloads and up to `most`."""
    return st.integers(2, most).flatmap(lambda n: st.tuples(*(workloads(f"w{i}", queues) for i in range(n))).map(list))


def quotas() -> st.SearchStrategy[dict[str, Queue]]:
    """Two queues with some quota for some models."""
    nominal = st.fixed_dictionaries(
        {"H100": st.integers(0, 9)},
        optional={name: st.integers(0, 9) for name in ("A100-80GB", "A100", "L40S")},
    )
    return st.tuples(nominal, nominal).map(lambda q: {"a": Queue("a", q[0]), "b": Queue("b", q[1])})
