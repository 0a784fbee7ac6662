"""Words for what a workload got: where it runs, on what, and at what price."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from berth.model.reasons import Verdict
from berth.planning.fleet import Pool
from berth.planning.options import Option, name_of

PLACED = "Placed"
MOST_NAMES = 4  # node names in a message; more would bury the rest


def placed(pool: Pool, nodes: Sequence[str], option: Option, options: Sequence[Option]) -> Verdict:
    """Where a gang runs, and why it got this option of those there are."""
    return Verdict(PLACED, f"{where(pool, nodes)}: {name_of(option.device)} each, {_why(option, options)}")


def where(pool: Pool, nodes: Sequence[str]) -> str:
    """A placement in words: "4 workers on 2 nodes of rack r1 (n1, n2)"."""
    distinct = list(dict.fromkeys(nodes))
    workers = f"{len(nodes)} worker{'s' if len(nodes) > 1 else ''}"
    if distinct == [""]:
        return f"{workers} on nodes that are to come"
    if len(distinct) == 1:
        return f"{workers} on node {distinct[0]}"
    names = ", ".join(distinct[:MOST_NAMES]) + (", …" if len(distinct) > MOST_NAMES else "")
    return f"{workers} on {len(distinct)} nodes{_domain(pool, distinct)} ({names})"


def sized(members: int, wanted: int, most: int, lacks: str) -> str:
    """How many members an elastic gang has, and what more would need.

    >>> sized(6, 8, 8, "room for 2 boards")
    '6 of at most 8 workers: 2 more would need room for 2 boards'
    >>> sized(8, 8, 12, "")
    '8 of at most 12 workers: more only of boards that nobody waits for'
    """
    if members >= most:
        return f"{members} workers, the most it takes"
    why = f"{wanted - members} more would need {lacks}" if lacks else "more only of boards that nobody waits for"
    return f"{members} of at most {most} workers: {why}"


def boards_text(boards: Fraction) -> str:
    """Boards as people write them: "8 boards", "1 board", "9/4 boards"."""
    return f"{boards} board{'' if boards == 1 else 's'}"


def _domain(pool: Pool, nodes: Sequence[str]) -> str:
    """The closest domain that holds all the nodes, in words; "" where none does."""
    paths = [pool.paths[pool.index[name]] for name in nodes if name in pool.index]
    for level in reversed(range(len(pool.levels))):
        prefixes = {path[: level + 1] for path in paths}
        if len(prefixes) == 1 and paths[0][level]:
            return f" of {pool.levels[level].name} {paths[0][level]}"
    return ""


def _why(option: Option, options: Sequence[Option]) -> str:
    price = f"${option.usd_per_hour:.2f}/h a worker"
    if len(options) < 2:
        return f"{price}, the only choice that matches"
    cheaper = [name_of(o.device) for o in options[: options.index(option)]]
    if not cheaper:
        return f"{price}, the cheapest of {len(options)} choices"
    return f"{price}, the cheapest with room and quota now (after {', '.join(cheaper)})"
