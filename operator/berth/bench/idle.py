"""Boards that keep their layout until they are idle, and ways to lay them out."""

from __future__ import annotations

from collections import Counter

from berth.bench.pieces import profile_named
from berth.model.boards import Instance
from berth.model.gpus import BoardModel, Profile
from berth.model.mig import free_starts, taken_by
from berth.planning.layouts import layout_for

CUTTING = 0.025  # what laying out an idle board costs: 90 s in which it serves nobody, of a mean lifetime of an hour
REMEMBERED = 64  # arrivals that first-fit layouts are made from


class IdleOnly:
    """An arrival takes a free instance of its profile, on the fullest board that has one; where none has, an idle board
    is laid out anew, and serves nobody until that is done."""

    waits = False  # whether arrivals take instances of boards that are still being laid out, and wait for them

    def __init__(self, model: BoardModel, boards: int) -> None:
        self.model = model
        self.cut: list[tuple[Instance, ...]] = [()] * boards
        self.spare: list[list[Instance]] = [[] for _ in range(boards)]  # instances that are free, in order of start
        self.held = [0] * boards  # memory slices
        self.ready = [0.0] * boards  # since when, or from when, a board serves
        self.idle = set(range(boards))
        self.having: dict[str, set[int]] = {p.name: set() for p in model.profiles}  # boards with a free instance
        self.free_instances: Counter[str] = Counter()  # of the whole fleet, by profile
        self.layouts = 0

    def place(self, profile: Profile, now: float) -> tuple[int, Instance] | None:
        self.saw(profile)
        having = [board for board in self.having[profile.name] if self.waits or self.ready[board] <= now]
        if having:
            board = max(having, key=lambda board: (self.held[board], -board))
        else:
            idle = sorted(board for board in self.idle if self.ready[board] <= now)
            if not idle:
                return None
            board = self.least_missed(idle)
            self._lay_out(board, profile, now)
        instance = next(i for i in self.spare[board] if i.profile == profile)
        self.held[board] += profile.memory_slices
        self.idle.discard(board)
        self._offer(board, [i for i in self.spare[board] if i is not instance])
        return board, instance

    def free(self, board: int, instance: Instance) -> None:
        self.held[board] -= instance.profile.memory_slices
        if not self.held[board]:
            self.idle.add(board)
        self._offer(board, sorted((*self.spare[board], instance), key=lambda i: i.start))

    def saw(self, profile: Profile) -> None:
        """An arrival asks for this profile."""
        raise NotImplementedError

    def least_missed(self, idle: list[int]) -> int:
        """Which idle board to lay out anew."""
        return idle[0]

    def layout(self, profile: Profile) -> tuple[Instance, ...]:
        """How to cut an idle board for an arrival."""
        raise NotImplementedError

    def _lay_out(self, board: int, profile: Profile, now: float) -> None:
        self._offer(board, [])
        self.cut[board] = self.layout(profile)
        self._offer(board, list(self.cut[board]))
        self.ready[board] = now + CUTTING
        self.layouts += 1

    def _offer(self, board: int, spare: list[Instance]) -> None:
        """Note what is free on a board from now on."""
        for instance in self.spare[board]:
            self.free_instances[instance.profile.name] -= 1
            self.having[instance.profile.name].discard(board)
        for instance in spare:
            self.free_instances[instance.profile.name] += 1
            self.having[instance.profile.name].add(board)
        self.spare[board] = spare


class Forecast(IdleOnly):
    """Ours: who fits on a board that is being laid out waits for it, as whom it is laid out for does; the rest of a
    board is cut by the mix of demands so far, beside what is free; of idle boards, the one goes whose instances are
    asked for least, for each that is free."""

    waits = True

    def __init__(self, model: BoardModel, boards: int) -> None:
        super().__init__(model, boards)
        self.mix: Counter[str] = Counter()

    def saw(self, profile: Profile) -> None:
        self.mix[profile.name] += 1

    def least_missed(self, idle: list[int]) -> int:
        each = {
            name: profile_named(self.model, name).memory_slices * self.mix[name] / n
            for name, n in self.free_instances.items()
            if n
        }
        return min(idle, key=lambda board: sum(each[i.profile.name] for i in self.cut[board]))

    def layout(self, profile: Profile) -> tuple[Instance, ...]:
        return layout_for(self.model, {profile.name: 1}, self.mix, free=self.free_instances) or ()


class FirstFit(IdleOnly):
    """The rest of the board is cut by the latest arrivals, each at its first free start."""

    def __init__(self, model: BoardModel, boards: int) -> None:
        super().__init__(model, boards)
        self.recent: list[Profile] = []

    def saw(self, profile: Profile) -> None:
        self.recent = [profile, *self.recent][:REMEMBERED]

    def layout(self, profile: Profile) -> tuple[Instance, ...]:
        cut: list[Instance] = []
        for wanted in (profile, *self.recent):
            starts = free_starts(taken_by(cut), wanted)
            if starts:
                cut.append(Instance(wanted, starts[0]))
        return tuple(cut)


class WaitingFirstFit(FirstFit):
    """The same, but arrivals wait for boards that are being laid out, as ours do."""

    waits = True
