"""The diagrams of docs/concepts.md: `python docs/.site/diagrams.py docs/img` draws them as SVG.

Boxes bring their own light ground, so that they can be read on a light and on a dark page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

INK, GREY = "#1f2937", "#8b93a1"
BLUE, GREEN, AMBER, RED, PALE = "#dbe4ff", "#d3f2dc", "#ffe8b8", "#ffd6d6", "#f1f3f5"
STYLE = "font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:13px"


class Drawing:
    """An SVG of a size, with a meaning for who can't see it."""

    def __init__(self, width: int, height: int, about: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" style="{STYLE}">',
            f"<title>{escape(about)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{GREY}"/></marker></defs>',
        ]

    def box(self, x: float, y: float, wide: float, high: float, fill: str, *lines: str) -> None:
        """A box with lines of text amid it; the first is bold where others follow."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="5" fill="{fill}" stroke="{GREY}"/>'
        )
        top = y + high / 2 - 8 * (len(lines) - 1) + 4.5
        for i, line in enumerate(lines):
            weight = ' font-weight="600"' if i == 0 and len(lines) > 1 else ""
            self._text(x + wide / 2, top + 16 * i, line, INK, weight)

    def say(self, x: float, y: float, text: str, anchor: str = "middle") -> None:
        """A remark on the page's own ground."""
        self._text(x, y, text, GREY, f' font-size="12" text-anchor="{anchor}"' if anchor != "middle" else "")

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points, with a tip at the last."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{GREY}" stroke-width="1.6" marker-end="url(#tip)"/>'
        )

    def line(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line without a tip."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dashes = ' stroke-dasharray="4 4"' if dashed else ""
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{GREY}" stroke-width="1.6"{dashes}/>')

    def svg(self) -> str:
        """The file."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"

    def _text(self, x: float, y: float, text: str, fill: str, more: str) -> None:
        anchor = "" if "text-anchor" in more else ' text-anchor="middle"'
        self._parts.append(f'<text x="{x:g}" y="{y:g}" fill="{fill}"{anchor}{more}>{escape(text)}</text>')


def cycle() -> Drawing:
    """Observe, plan, apply."""
    d = Drawing(720, 210, "Observe, plan, apply: the API server is read into a snapshot, planned on, and written to")
    d.box(20, 20, 680, 48, PALE, "Kubernetes API server", "workloads, queues, nodes, GPUNodes, Jobs, pods")
    d.box(40, 130, 150, 56, BLUE, "observe", "one snapshot")
    d.box(270, 130, 180, 56, GREEN, "plan", "snapshot, policy, now")
    d.box(530, 130, 150, 56, AMBER, "apply", "write what differs")
    d.arrow((115, 68), (115, 130))
    d.arrow((190, 158), (270, 158))
    d.arrow((450, 158), (530, 158))
    d.arrow((605, 130), (605, 68))
    d.say(123, 104, "watches", "start")
    d.say(490, 150, "actions")
    d.say(490, 178, "verdicts")
    d.say(597, 104, "Jobs, layouts, statuses", "end")
    d.say(360, 120, "pure: no clock, no I/O")
    return d


def attempts() -> Drawing:
    """The states of a TrainingJob."""
    d = Drawing(
        720, 220, "States of a TrainingJob: attempts begin when all members fit, and end well or lead to another"
    )
    for x, fill, name, about in (
        (20, PALE, "Pending", "a verdict says why"),
        (205, BLUE, "Admitted", "pods made, pinned"),
        (390, GREEN, "Running", "all pods are ready"),
    ):
        d.box(x, 40, 145, 54, fill, name, about)
    d.box(575, 14, 130, 40, GREEN, "Succeeded")
    d.box(575, 78, 130, 40, RED, "Failed")
    d.box(390, 154, 145, 54, AMBER, "Stopping", "save, then SIGTERM")
    d.arrow((165, 67), (205, 67))
    d.arrow((350, 67), (390, 67))
    d.arrow((535, 58), (575, 36))
    d.arrow((535, 76), (575, 96))
    d.arrow((462, 94), (462, 154))
    d.arrow((390, 181), (92, 181), (92, 94))
    d.say(470, 134, "interrupted, gives way,", "start")
    d.say(470, 149, "suspended or crashed", "start")
    d.say(240, 173, "the next attempt, when there is room")
    return d


def queues() -> Drawing:
    """A tree of queues that lends and borrows."""
    d = Drawing(720, 210, "Queues under one parent: production lends 8 boards, research borrows them")
    d.box(285, 14, 150, 46, PALE, "lab", "32 boards in all")
    for x, fill, name, about in (
        (30, BLUE, "production", "owns 16, uses 8, lends 8"),
        (270, GREEN, "research", "owns 16, uses 24"),
        (510, AMBER, "scavenger", "owns none, borrows"),
    ):
        d.box(x, 104, 180, 54, fill, name, about)
        d.line((360, 60), (360, 82), (x + 90, 82), (x + 90, 104))
    d.arrow((210, 140), (270, 140))
    d.say(240, 180, "8 boards, taken back when they are wanted")
    return d


def mig() -> Drawing:
    """MIG instances on the memory slices of a board."""
    d = Drawing(720, 250, "MIG layouts of an 80 GB A100: instances begin at fixed memory slices")
    slice_, left = 68.0, 140.0
    for i in range(8):
        d.say(left + slice_ * (i + 0.5), 24, f"slice {i}")
    rows: Sequence[tuple[str, Sequence[tuple[int, int, str, str]]]] = (
        ("for small work", [(i, 1, "1g.10gb", PALE) for i in range(7)]),
        ("for large work", [(0, 4, "3g.40gb", PALE), (4, 4, "3g.40gb", PALE)]),
        ("today", [(0, 1, "1g, busy", AMBER), (1, 1, "1g", PALE), (2, 1, "1g", PALE), (3, 1, "1g", PALE),
                   (4, 1, "1g", PALE), (5, 1, "1g", PALE), (6, 1, "1g", PALE)]),
        ("laid out anew", [(0, 1, "1g, busy", AMBER), (1, 1, "1g", PALE), (2, 1, "1g", PALE), (3, 1, "1g", PALE),
                           (4, 4, "3g.40gb, for a job that waits", GREEN)]),
    )  # fmt: skip
    for row, (name, instances) in enumerate(rows):
        y = 40 + 50 * row
        d.say(left - 12, y + 22, name, "end")
        for start, size, label, fill in instances:
            d.box(left + slice_ * start + 1, y, slice_ * size - 2, 34, fill, label)
    return d


def markets() -> Drawing:
    """A job that chooses its hours."""
    d = Drawing(720, 250, "Carbon intensity by the hour: the job waits, runs in the clean hours and meets its deadline")
    grams = (410, 420, 430, 400, 330, 220, 120, 90, 80, 100, 150, 260, 350, 400)
    base, wide, left = 190.0, 40.0, 70.0
    for i, g in enumerate(grams):
        runs = 6 <= i <= 10
        d.box(left + wide * i, base - g * 0.34, wide - 4, g * 0.34, GREEN if runs else PALE)
        d.say(left + wide * i + 18, base + 18, f"{(i + 16) % 24:02d}")
    d.say(left - 8, base - 130, "g/kWh", "end")
    d.line((left + wide * 13, 20), (left + wide * 13, base), dashed=True)
    d.say(left + wide * 13 - 6, 30, "deadline", "end")
    d.arrow((left, 228), (left + wide * 6 - 4, 228))
    d.say(left + wide * 3, 246, "waits, holds nothing")
    d.box(left + wide * 6, 216, wide * 5 - 4, 28, GREEN, "runs")
    d.arrow((left + wide * 11, 228), (left + wide * 13 - 4, 228))
    d.say(left + wide * 12, 246, "slack")
    return d


def interruption() -> Drawing:
    """From the notice to the next attempt."""
    d = Drawing(720, 250, "An interruption: notice, save request, stop once all have saved, next attempt elsewhere")
    for y, name in ((30, "node"), (100, "Berth"), (170, "program")):
        d.say(62, y + 24, name, "end")
    d.box(75, 30, 160, 40, RED, "notice: gone in 120 s")
    d.box(560, 30, 150, 40, PALE, "another node")
    d.box(140, 100, 140, 40, BLUE, "asks all to save")
    d.box(330, 100, 150, 40, BLUE, "stops the gang")
    d.box(560, 100, 150, 40, BLUE, "next attempt")
    d.box(190, 170, 190, 44, GREEN, "step, save, report", "goes on meanwhile")
    d.box(400, 170, 130, 44, AMBER, "SIGTERM", "exits with 75")
    d.box(560, 170, 150, 44, GREEN, "RESUME_FROM", "goes on from there")
    d.arrow((160, 70), (180, 100))
    d.arrow((220, 140), (250, 170))
    d.arrow((345, 170), (380, 140))
    d.arrow((430, 140), (455, 170))
    d.arrow((480, 120), (560, 120))
    d.arrow((635, 140), (635, 170))
    d.arrow((635, 100), (635, 70))
    d.say(360, 238, "stopped as soon as all have saved, or shortly before the node goes")
    return d


DIAGRAMS: tuple[Callable[[], Drawing], ...] = (cycle, attempts, queues, mig, markets, interruption)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for draw in DIAGRAMS:
        (folder / f"{draw.__name__}.svg").write_text(draw().svg())
