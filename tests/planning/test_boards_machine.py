"""Arrivals, departures, repartitions and failures in any order: boards on a working copy beside a brute-force model.

The model knows a board as the list of its memory slices and who holds each; it tries every start of every board.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from berth.model.boards import Instance
from berth.model.gpus import BoardModel, Profile
from berth.model.mig import free_starts, mask_of, taken_by
from berth.planning.boards import Name, Stock
from berth.planning.layouts import layout_for
from tests.planning.builders import model


@dataclass
class Truth:
    """One board as the driver sees it: which instance owns each memory slice."""

    model: BoardModel
    held: dict[str, tuple[Profile, int]] = field(default_factory=dict)

    def owners(self) -> list[str]:
        """Who holds each memory slice; "" nobody. Fails where two do."""
        slices = [""] * self.model.memory_slices
        for pod, (profile, start) in self.held.items():
            for number in range(start, start + profile.memory_slices):
                assert not slices[number], f"{pod} and {slices[number]} share memory slice {number}"
                slices[number] = pod
        return slices

    def could_hold(self, profile: Profile) -> list[int]:
        """The starts at which the driver would create an instance."""
        owners = self.owners()
        kinds = Counter(p.name for p, _ in self.held.values())
        media = any(p.media for p, _ in self.held.values())
        if kinds[profile.name] >= profile.max_instances or (profile.media and media):
            return []
        return [s for s in profile.starts if not any(owners[s : s + profile.memory_slices])]


class Boards(RuleBasedStateMachine):
    """A few boards of one model, of which any may fail, under arrivals and departures."""

    gpu: BoardModel
    pods: Bundle[tuple[Name, Instance]] = Bundle("pods")

    @initialize(boards=st.integers(1, 4))
    def begin(self, boards: int) -> None:
        self.truth = {("node", index): Truth(self.gpu) for index in range(boards)}
        self.stock = Stock(self.gpu, self.truth)
        self.arrived = 0

    @rule(target=pods, number=st.integers(0, 10))
    def arrive(self, number: int) -> object:
        profile = self.gpu.profiles[number % len(self.gpu.profiles)]
        possible = {board: truth.could_hold(profile) for board, truth in self.truth.items()}
        self.arrived += 1
        placed = self.stock.place(profile, f"team/{self.arrived}")
        if placed is None:
            assert not any(possible.values()), "refused, though there is room"
            return multiple()
        board, instance = placed
        assert instance.start in possible[board]
        self.truth[board].held[instance.holder] = (profile, instance.start)
        return placed

    @rule(pod=consumes(pods))
    def leave(self, pod: tuple[Name, Instance]) -> None:
        board, instance = pod
        if board in self.truth and instance.holder in self.truth[board].held:
            self.stock.free(board, instance)
            del self.truth[board].held[instance.holder]

    @rule(number=st.integers(0, 10))
    def fail(self, number: int) -> None:
        """A board fails with all that it holds."""
        if self.truth:
            board = sorted(self.truth)[number % len(self.truth)]
            lost = self.stock.remove(board)
            assert {i.holder for i in lost} == set(self.truth.pop(board).held)

    @rule(index=st.integers(0, 5))
    def come_back(self, index: int) -> None:
        """A board is replaced, or one is new."""
        if ("node", index) not in self.truth:
            self.stock.add(("node", index))
            self.truth["node", index] = Truth(self.gpu)

    @rule(number=st.integers(0, 10), kind=st.integers(0, 10), weights=st.lists(st.floats(0, 9), min_size=7, max_size=7))
    def lay_out_anew(self, number: int, kind: int, weights: list[float]) -> None:
        """A board is cut for one more instance and a forecast: what is held stays where it is, the rest is free."""
        if not self.truth:
            return
        board = sorted(self.truth)[number % len(self.truth)]
        profile = self.gpu.profiles[kind % len(self.gpu.profiles)]
        held = self.stock.held[board]
        mix = {p.name: weight for p, weight in zip(self.gpu.profiles, weights, strict=False)}
        layout = layout_for(self.gpu, {profile.name: 1}, mix, held)
        assert (layout is not None) == bool(self.truth[board].could_hold(profile))
        for instance in layout or ():
            if instance.holder:
                assert self.truth[board].held[instance.holder] == (instance.profile, instance.start)
            else:
                assert instance.start in self.truth[board].could_hold(instance.profile)
        if layout is not None:
            assert {i.holder for i in layout if i.holder} == set(self.truth[board].held)
            trial = Truth(self.gpu, {str(i): (each.profile, each.start) for i, each in enumerate(layout)})
            trial.owners()

    @invariant()
    def the_copy_is_the_truth(self) -> None:
        assert set(self.stock.held) == set(self.truth)
        for board, truth in self.truth.items():
            truth.owners()
            held = self.stock.held[board]
            assert {i.holder: (i.profile, i.start) for i in held} == truth.held
            assert all(i.start in i.profile.starts for i in held)
            for profile in self.gpu.profiles:
                assert list(free_starts(taken_by(held), profile)) == truth.could_hold(profile)


@pytest.mark.parametrize("name", ["H100-80GB", "A30"])
def test_nothing_overcommits_a_board_or_touches_what_is_held(name: str) -> None:
    boards = type("Boards", (Boards,), {"gpu": model(name)})
    run_state_machine_as_test(boards, settings=settings(max_examples=30, stateful_step_count=40, deadline=None))


def test_a_board_takes_no_instance_twice_and_frees_none_that_it_lacks() -> None:
    a30 = model("A30")
    profile = a30.profiles[0]
    stock = Stock(a30, [("node", 0)])
    with pytest.raises(ValueError, match="is there already"):
        stock.add(("node", 0))
    with pytest.raises(ValueError, match="holds what no board can"):
        stock.add(("node", 1), (Instance(profile, 0), Instance(profile, 0)))
    with pytest.raises(ValueError, match="does not hold"):
        stock.free(("node", 0), Instance(profile, 0, "team/web"))
    assert mask_of(profile, 0) == 1
