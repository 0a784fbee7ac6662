"""The KWOK fleet writes little: once per change, in batches, and nothing that it need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from e2e.fakegpu.kube import ApiError, Kube
from e2e.fakegpu.kwok import KwokFleet
from e2e.fakegpu.objects import NodeObject
from tests.fakegpu.machines import a_fleet, a_pod


class RecordingApi(Kube):
    """An API server that only counts, and refuses what the test says."""

    def __init__(self) -> None:
        super().__init__("http://unused.invalid")
        self.writes: Counter[str] = Counter()
        self.missing: set[str] = set()
        self.during: Callable[[], None] = lambda: None  # what happens while a request is under way

    async def request(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **params: str
    ) -> Any:
        self.writes[f"{method} {path}"] += 1
        self.during()
        if any(path.startswith(each) for each in self.missing):
            raise ApiError(404, "not found")
        return {"items": []} | (body or {}) | {"metadata": {"name": "n-0", "uid": "some"}}

    def taken(self) -> dict[str, int]:
        """The requests since the last call."""
        writes, self.writes = dict(self.writes), Counter()
        return writes


GPUNODES = "/apis/berth.dev/v1alpha1/gpunodes"
STATUS = f"PATCH {GPUNODES}/n-0/status"


def a_node(name: str = "n-0", gpus: int = 2) -> NodeObject:
    resources = {"nvidia.com/gpu": str(gpus)}
    return msgspec.convert({"metadata": {"name": name}, "status": {"allocatable": resources}}, NodeObject)


async def a_settled_fleet(api: RecordingApi) -> KwokFleet:
    """One node of two boards, all of it written at second 0."""
    fleet = KwokFleet(api, a_fleet(count=1))
    await fleet.create()
    fleet.observe_node("ADDED", a_node())
    await fleet.flush(0)
    api.taken()
    return fleet


async def test_writes_nothing_when_nothing_changed() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_node("MODIFIED", a_node())
    await fleet.flush(5)
    assert api.taken() == {}


async def test_shows_once_a_minute_that_it_still_looks() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    for second in range(130):
        await fleet.flush(second)
    assert api.taken() == {STATUS: 2}


async def test_leaves_gpunodes_to_the_agent_where_one_runs() -> None:
    api = RecordingApi()
    fleet = KwokFleet(api, a_fleet(count=1, agent=True))
    await fleet.create()
    fleet.observe_node("ADDED", a_node())
    fleet.observe_pod("ADDED", a_pod("pod", {"nvidia.com/gpu": 1}))
    await fleet.flush(100)
    assert not any("PATCH" in write and GPUNODES in write for write in api.taken())


async def test_writes_one_status_for_a_burst_of_pods() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_pod("ADDED", a_pod("first", {"nvidia.com/gpu": 1}))
    fleet.observe_pod("ADDED", a_pod("second", {"nvidia.com/gpu": 1}))
    await fleet.flush(5)
    assert api.taken() == {STATUS: 1}


async def test_keeps_a_second_between_two_writes_of_a_node() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_pod("ADDED", a_pod("pod", {"nvidia.com/gpu": 1}))
    await fleet.flush(0.5)
    assert api.taken() == {}
    await fleet.flush(1)
    assert api.taken() == {STATUS: 1}


async def test_writes_again_what_changed_while_it_wrote() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    api.during = lambda: fleet.observe_pod("ADDED", a_pod("second", {"nvidia.com/gpu": 1}))
    fleet.observe_pod("ADDED", a_pod("first", {"nvidia.com/gpu": 1}))
    await fleet.flush(5)
    await fleet.flush(6)
    assert api.taken() == {STATUS: 2}


async def test_writes_no_status_for_pods_without_gpus() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_pod("ADDED", a_pod("pod", {"cpu": 1}))
    await fleet.flush(5)
    assert api.taken() == {}


async def test_tells_a_refused_pod_until_it_is_seen_to_have_failed() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_pod("ADDED", a_pod("pod", {"nvidia.com/gpu": 3}, phase="Running"))
    await fleet.flush(5)
    assert api.taken() == {"PATCH /api/v1/namespaces/default/pods/pod/status": 1}
    fleet.observe_pod("MODIFIED", a_pod("pod", {"nvidia.com/gpu": 3}, phase="Failed"))
    await fleet.flush(10)
    assert api.taken() == {}


async def test_waits_for_kwok_to_have_started_a_pod_before_it_refuses_it() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_pod("ADDED", a_pod("first", {"nvidia.com/gpu": 2}))
    fleet.observe_pod("ADDED", a_pod("second", {"nvidia.com/gpu": 2}, phase="Pending"))
    await fleet.flush(5)
    assert api.taken() == {STATUS: 1}
    fleet.observe_pod("DELETED", a_pod("first", {}))
    fleet.observe_pod("MODIFIED", a_pod("second", {"nvidia.com/gpu": 2}, phase="Running"))
    await fleet.flush(6)
    assert api.taken() == {STATUS: 1, "PATCH /api/v1/namespaces/default/pods/second/status": 1}


async def test_corrects_allocatable_that_someone_else_changed() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_node("MODIFIED", a_node(gpus=8))
    await fleet.flush(5)
    assert api.taken() == {"PATCH /api/v1/nodes/n-0/status": 1}


async def test_asks_seldom_for_gpunodes_until_their_crd_is_there() -> None:
    api = RecordingApi()
    api.missing = {GPUNODES}
    fleet = await a_settled_fleet(api)
    for now in range(2, 10):
        await fleet.flush(now)
    assert api.taken() == {}
    api.missing = set()
    await fleet.flush(11)
    assert api.taken() == {f"PATCH {GPUNODES}/n-0": 1, STATUS: 1}


async def test_leaves_a_deleted_node_deleted() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_node("DELETED", a_node())
    await fleet.flush(5)
    assert api.taken() == {}


async def test_labels_a_node_that_was_created_again() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_node("DELETED", a_node())
    fleet.observe_node("ADDED", a_node())
    await fleet.flush(5)
    assert api.taken() == {"PATCH /api/v1/nodes/n-0": 1, f"PATCH {GPUNODES}/n-0": 1, STATUS: 1}


async def test_makes_a_deleted_gpunode_anew_when_there_is_news() -> None:
    api = RecordingApi()
    fleet = await a_settled_fleet(api)
    fleet.observe_pod("ADDED", a_pod("pod", {"nvidia.com/gpu": 1}))
    api.missing = {f"{GPUNODES}/n-0/status"}
    await fleet.flush(5)
    api.missing = set()
    await fleet.flush(6)
    assert api.taken() == {f"PATCH {GPUNODES}/n-0": 1, STATUS: 2}
