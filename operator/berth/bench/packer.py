"""Berth's own packer in a replay: each pod where it costs least, by prices that follow what is free."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from berth.bench.fleet import Fleet, Ints
from berth.bench.policies import Choice, Scoreboard, Scores
from berth.planning.scarcity import Demand, Prices, Scarcity

PRICES_LAST = 0.02  # of the fleet's boards asked for, until prices are made anew: 0.1 packs nearly alike

_State = tuple[int, ...]


class LeastCost:
    """The node where a demand costs least; of equals the one with the least room, whatever its name or place."""

    def __init__(self, mix: Mapping[Demand, int], fleet: Fleet) -> None:
        self._scarcity = Scarcity(mix, fleet.models, fleet)
        self._prices: Prices = self._scarcity.priced(fleet)
        self._asked = 0  # thousandths of boards, since the prices were made
        self._lasting = PRICES_LAST * float(fleet.free.sum())
        self._scoreboard = Scoreboard(self._scores)
        self._states = [_state(fleet, node) for node in range(len(fleet))]
        self._last: int | None = None  # the node whose state is no longer known

    def choose(self, fleet: Fleet, demand: Demand) -> Choice | None:
        """See Policy."""
        if self._last is not None:
            self._states[self._last] = _state(fleet, self._last)
        self._reprice(fleet, demand)
        known = self._scoreboard.of(fleet, demand)
        highest = known.scores.max()
        if highest == -np.inf:
            return None
        self._last = min(np.flatnonzero(known.scores == highest).tolist(), key=self._states.__getitem__)
        self._scoreboard.placed(self._last)
        return self._last, int(known.boards[self._last])

    def _reprice(self, fleet: Fleet, demand: Demand) -> None:
        """Make prices anew once they have lasted long enough; a demand of no boards is no reason."""
        if self._asked > self._lasting:
            self._prices = self._scarcity.priced(fleet)
            self._scoreboard.forget()
            self._asked = 0
        self._asked += demand.milli

    def _scores(self, fleet: Fleet, demand: Demand, rows: Ints) -> Scores:
        scores, boards = np.full(len(rows), -np.inf), np.zeros(len(rows), dtype=np.int64)
        fits = fleet.fits(demand, rows)
        costs, boards[fits] = self._prices.cost(fleet, demand, rows[fits])
        scores[fits] = -costs
        return scores, boards


def _state(fleet: Fleet, node: int) -> _State:
    """All that tells nodes apart, the least room first."""
    free = fleet.free[node].tolist()
    return sum(free), int(fleet.cpu[node]), int(fleet.memory[node]), int(fleet.model[node]), *sorted(free)
