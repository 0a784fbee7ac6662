"""What a node shows of laying out its boards: the note that Berth keeps on it, and how far a re-layout is.

The note is one annotation, on the Node where mig-manager lays out, on the GPUNode where the node's agent does: it is
written by the same patch that sets a re-layout going, and is all that a restarted operator needs to go on with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from berth.control.records import LAYOUT_ANNOTATION, GPUNodeRecord, NodeRecord
from berth.model.boards import Board, Instance
from berth.model.gpus import WHOLE_BOARD, BoardModel
from berth.model.nodes import BoardLayout, Node, Progress, Relayout, Trouble, Way
from berth.model.resources import Resources
from berth.planning.supply import counts, laid, resources

CONFIG_LABEL = "nvidia.com/mig.config"
STATE_LABEL = "nvidia.com/mig.config.state"
OPERAND_LABELS = "nvidia.com/gpu.deploy."
PAUSED = "paused-for-mig-change"


@dataclass(frozen=True, slots=True)
class Note:
    """What Berth keeps in mind about a node's boards."""

    relayout: Relayout | None = None
    laid: tuple[tuple[int, float], ...] = ()
    trouble: Trouble | None = None


def note_text(note: Note) -> str:
    """The annotation that states a note; "" for one that says nothing."""
    value: dict[str, Any] = {}
    if note.relayout is not None:
        r = note.relayout
        value["relayout"] = {
            "way": r.way,
            "boards": [
                {"index": b.index, "mig": b.mig_enabled, "instances": [[i.profile.name, i.start] for i in b.instances]}
                for b in r.boards
            ],
            "for": r.workload,
            "since": r.since,
            "usd": r.usd,
            "attempt": r.attempt,
            "tried": r.tried,
        }
    if note.laid:
        value["laid"] = {str(index): at for index, at in note.laid}
    if note.trouble is not None:
        value["trouble"] = {"times": note.trouble.times, "until": note.trouble.until, "why": note.trouble.why}
    return json.dumps(value, separators=(",", ":")) if value else ""


def note_from(text: str, model: BoardModel) -> Note:
    """The inverse of `note_text`; an empty note where the annotation states none: anybody may write these."""
    try:
        value = json.loads(text or "{}")
        trouble = value.get("trouble")
        return Note(
            relayout=_relayout_from(value["relayout"], model) if "relayout" in value else None,
            laid=tuple(sorted((int(index), _number(at)) for index, at in value.get("laid", {}).items())),
            trouble=Trouble(int(trouble["times"]), _number(trouble["until"]), str(trouble["why"])) if trouble else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Note()


def noted(node: Node, record: NodeRecord, report: GPUNodeRecord | None, assumed: Relayout | None) -> Node:
    """The node with what is known of its boards, who can lay them out, and what is under way."""
    model = node.board
    if model is None:
        return node
    boards = report.boards if report else ()
    notes = [note_from(r.meta.annotations.get(LAYOUT_ANNOTATION, ""), model) for r in (record, report) if r is not None]
    relayout = assumed or next((note.relayout for note in notes if note.relayout), None)
    node = replace(
        node,
        boards=boards,
        links=report.links if report else (),
        way=way_of(record, report),
        laid=tuple(sorted({pair for note in notes for pair in note.laid})),
        trouble=max((n.trouble for n in notes if n.trouble), key=lambda trouble: trouble.until, default=None),
    )
    if relayout is None:
        return node
    progress, message = _progress(relayout, record, report, model)
    coming = node.allocatable
    if boards:
        coming = resources(record.allocatable, model, laid(boards, relayout.boards))
    return replace(node, allocatable=coming, relayout=replace(relayout, progress=progress, message=message))


def way_of(record: NodeRecord, report: GPUNodeRecord | None) -> Way | None:
    """Who can lay out the node's boards; None: nobody, or what they offer would change its meaning."""
    labels = record.meta.labels
    if labels.get("nvidia.com/mig.strategy") != "mixed" or report is None:
        return None
    if report.lays_out:
        return Way.AGENT
    managed = labels.get("nvidia.com/mig.capable") == "true" and (CONFIG_LABEL in labels or STATE_LABEL in labels)
    return Way.MIG_MANAGER if managed else None


def in_the_way(relayout: Relayout, boards: tuple[Board, ...]) -> str:
    """Who holds what would have to go, in words; "" for nobody."""
    wanted = {layout.index: layout for layout in relayout.boards}
    for board in boards:
        if board.index in wanted:
            stays = {(i.profile, i.start) for i in wanted[board.index].instances}
            free = relayout.way is Way.AGENT
            held = [i for i in board.instances if i.holder and not (free and (i.profile, i.start) in stays)]
            if board.holder or held:
                return f"board {board.index} is held by {board.holder or held[0].holder}"
    return ""


def _relayout_from(value: Mapping[str, Any], model: BoardModel) -> Relayout:
    return Relayout(
        way=Way(value["way"]),
        boards=tuple(
            BoardLayout(
                int(b["index"]), bool(b["mig"]), tuple(_instance(name, at, model) for name, at in b["instances"])
            )
            for b in value["boards"]
        ),
        workload=str(value["for"]),
        since=_number(value["since"]),
        usd=_number(value["usd"]),
        attempt=int(value["attempt"]),
        tried=_number(value["tried"]),
    )


def _number(value: Any) -> float:
    if not isfinite(number := float(value)):
        raise ValueError(f"not a time or price: {number}")
    return number


def _instance(name: str, start: int, model: BoardModel) -> Instance:
    profile = model.profile(name)
    if profile is None or start not in profile.starts:
        raise ValueError(f"no instance of {model.name}: {name} at {start}")
    return Instance(profile, start)


def _progress(
    relayout: Relayout, record: NodeRecord, report: GPUNodeRecord | None, model: BoardModel
) -> tuple[Progress, str]:
    """How far it is. Done is what the boards show and the kubelet offers: a label alone may be one of before."""
    if report is None:
        return Progress.WORKING, ""
    shown = _offered(record.allocatable, model) == +counts(report.boards)
    if relayout.way is Way.AGENT:
        if report.current and report.laid_out in ("Failed", "Invalid"):
            return Progress.FAILED, report.message
        laid_out = report.current and report.laid_out == "AsWanted"
    else:
        state = record.meta.labels.get(STATE_LABEL)
        if state == "failed":
            return Progress.FAILED, f"mig-manager says failed of {record.meta.labels.get(CONFIG_LABEL, 'no entry')}"
        laid_out = state == "success"
    done = laid_out and shown and _met(relayout, report.boards)
    return (Progress.DONE if done else Progress.WORKING), report.message if relayout.way is Way.AGENT else ""


def _met(relayout: Relayout, boards: tuple[Board, ...]) -> bool:
    """Whether the boards have the profiles wanted, wherever these begin: mig-manager can't be told."""
    found = {board.index: board for board in boards}
    return all(
        layout.index in found
        and found[layout.index].mig_enabled == layout.mig_enabled
        and _profiles(found[layout.index].instances) == _profiles(layout.instances)
        for layout in relayout.boards
    )


def _profiles(instances: tuple[Instance, ...]) -> list[str]:
    return sorted(i.profile.name for i in instances)


def _offered(allocatable: Resources, model: BoardModel) -> dict[str, int]:
    """What the kubelet offers, by profile and whole boards."""
    found = {WHOLE_BOARD: allocatable.get(WHOLE_BOARD, 0)}
    for profile in model.profiles:
        found[profile.name] = sum(allocatable.get(name, 0) for name in profile.resources)
    return {name: n for name, n in found.items() if n}
