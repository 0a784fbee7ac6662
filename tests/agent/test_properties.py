"""Whatever the operator wants and pods do, in any order: no instance goes under a pod, and rest means as wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from berth.control.ports import Json
from berth.model.gpus import MODELS
from berth.model.mig import layouts
from e2e.fakegpu.node import Holder, Refused
from tests.agent.nodes import World, a_node

BOARDS = 2
LAYOUTS = {model.name: layouts(model) for model in MODELS if model.name in ("A30", "H100-80GB")}


class Life(RuleBasedStateMachine):
    """A node's life."""

    @initialize(model=st.sampled_from(sorted(LAYOUTS)))
    def begin(self, model: str) -> None:
        self.model, self.pods, self.names = model, dict[str, tuple[str, ...]](), 0
        self.world = World(a_node(board=model, boardsPerNode=BOARDS))
        self.wish: list[Json] = []
        self.run(self.world.look())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    @rule(data=st.data(), which=st.sets(st.integers(0, BOARDS - 1)), whole=st.booleans())
    def want(self, data: st.DataObject, which: set[int], whole: bool) -> None:
        """The operator writes any legal layouts, knowing nothing of the pods."""
        self.wish = []
        for index in sorted(which):
            layout = data.draw(st.sampled_from(LAYOUTS[self.model]))
            instances = [{"profile": i.profile.name, "start": i.start} for i in layout]
            mode = {"migEnabled": False} if whole and not instances else {}
            self.wish.append({"index": index, "instances": instances, **mode})
        self.run(self.world.want(*self.wish))

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """A pod arrives, and gets what the device plugin last offered, gone or not."""
        resource = data.draw(st.sampled_from([*self.world.node.devices(), "nvidia.com/gpu"]))
        self.names += 1
        name = f"pod-{self.names}"
        try:
            self.pods[name] = self.world.node.admit(Holder("team", name), {resource: 1})
        except Refused:
            return

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A pod ends."""
        if self.pods:
            name = data.draw(st.sampled_from(sorted(self.pods)))
            del self.pods[name]
            self.world.node.release(Holder("team", name))

    @rule(seconds=st.integers(1, 400))
    def later(self, seconds: int) -> None:
        """Time passes."""
        self.run(self.world.later(seconds))

    @rule()
    def restart(self) -> None:
        """The agent is replaced."""
        self.world.agent = self.world.new_agent()

    @rule(seconds=st.integers(1, 100))
    def silence(self, seconds: int) -> None:
        """The kubelet is away for a while."""
        self.world.no_kubelet = "away"
        self.run(self.world.later(seconds))
        self.world.no_kubelet = ""

    @invariant()
    def nothing_goes_under_a_pod(self) -> None:
        assert self.world.driver.wrongs == []

    @invariant()
    def done_means_as_wanted_and_offered(self) -> None:
        conditions = self.world.status.get("conditions")
        if conditions and conditions[0]["status"] == "True":
            self.as_wanted()

    def as_wanted(self) -> None:
        for board in self.wish:
            found = self.world.node.boards[board["index"]]
            layout = {(i.placed.profile.name, i.placed.start) for i in found.instances}
            assert layout == {(i["profile"], i["start"]) for i in board["instances"]}
            assert found.mig_enabled or not layout
        offered = {i for ids in self.world.node.devices().values() for i in ids}
        boards = self.world.node.boards
        assert offered == {b.uuid for b in boards if not b.mig_enabled} | {i.uuid for b in boards for i in b.instances}

    def teardown(self) -> None:
        """Once all pods are gone, every wish comes true."""
        if not hasattr(self, "world"):
            return
        self.world.node.holders.clear()
        for _ in range(3):
            self.run(self.world.later(400))
        self.as_wanted()
        assert self.world.driver.wrongs == []


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestLife = Life.TestCase
