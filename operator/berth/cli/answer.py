"""Manifests as questions, and the answers for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import yaml

from berth.cli import told
from berth.cli.view import View
from berth.control.ports import GROUP, VERSION
from berth.control.status import to_rfc3339
from berth.model.workloads import Kind, Ref
from berth.planning.question import Answer
from berth.planning.question import what_if as answered
from berth.planning.whatif import unplaced

ASKED_UID = "berth-what-if"  # no object of a cluster has it


class ManifestError(Exception):
    """A file that asks for nothing; the message names the document and the remedy."""


def manifests(file: Path) -> list[Mapping[str, Any]]:
    """The workloads that a file asks for. Raises ManifestError."""
    try:
        documents = [raw for raw in yaml.safe_load_all(file.read_text()) if raw is not None]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{file} is no YAML: {error}") from error
    except OSError as error:
        raise ManifestError(f"{file}: {error.strerror}") from error
    ours: list[Mapping[str, Any]] = [
        raw for raw in documents if isinstance(raw, dict) and raw.get("kind") in list(Kind)
    ]
    if not ours:
        raise ManifestError(f"{file} holds no {' or '.join(Kind)}")
    for raw in ours:
        if raw.get("apiVersion") != f"{GROUP}/{VERSION}":
            raise ManifestError(f"{file}: apiVersion is {raw.get('apiVersion')!r}: write {GROUP}/{VERSION}")
        if not isinstance(raw.get("metadata"), dict) or not isinstance(raw.get("spec"), dict):
            raise ManifestError(f"{file}: a {raw['kind']} without metadata or spec")
    return ours


def ask(view: View, namespace: str, raw: Mapping[str, Any]) -> Answer:
    """What would happen if this were applied. Raises ManifestError.

    One that waits under this name already is asked as if it were changed to this; beside one that runs, it is asked as
    another of the same.
    """
    metadata = raw["metadata"]
    name = str(metadata.get("name") or f"{metadata.get('generateName', 'asked-')}x")
    where = namespace or str(metadata.get("namespace") or view.namespace)
    there = next((w for w in view.snapshot.workloads if _named(w.ref) == (raw["kind"], where, name)), None)
    waits = there is not None and not there.attempt and not there.finished and not there.pods
    created = there.created if there is not None and waits else view.now
    identity = {"uid": ASKED_UID, "creationTimestamp": to_rfc3339(created), "generation": 1, "resourceVersion": "1"}
    asked = view.convert({**raw, "metadata": {**metadata, "name": name, "namespace": where, **identity}, "status": {}})
    if asked is None:
        raise ManifestError(f"{raw['kind']} {name} can't be read: see the log above")
    rest = view.snapshot.workloads
    notes = view.notes
    if there is not None and waits:
        rest = tuple(w for w in rest if w is not there)
        notes = (*notes, f"{where}/{name} waits already: asked as if it were changed to this")
    elif there is not None:
        notes = (*notes, f"{where}/{name} is there already: asked as another one beside it")
    answer = answered(replace(view.snapshot, workloads=rest), view.config.policy(), view.now, unplaced(asked))
    explanation = replace(answer.explanation, notes=(*answer.explanation.notes, *notes))
    return replace(answer, explanation=explanation)


def write(answer: Answer, file: TextIO) -> None:
    """Print it: in colour on a terminal, plain elsewhere."""
    told.write(answer.explanation, file, _others(answer))


def as_data(answer: Answer) -> dict[str, Any]:
    """The same for programs; keys stay, new ones may come."""
    return {
        **told.as_data(answer.explanation),
        "kind": "Answer",
        "displaces": [{**_ref(d.ref), "reason": d.reason, "message": d.message} for d in answer.displaced],
        "delays": [_ref(ref) for ref in answer.delayed],
    }


def _others(answer: Answer) -> list[str]:
    displaced = [f"{_text(d.ref)} would be stopped ({d.reason}): {d.message}" for d in answer.displaced]
    delayed = [f"{_text(ref)} would have to wait, which it would not without this" for ref in answer.delayed]
    return [*displaced, *delayed] or ["nobody would be stopped, and nobody who could start now would have to wait"]


def _named(ref: Ref) -> tuple[str, str, str]:
    return str(ref.kind), ref.namespace, ref.name


def _ref(ref: Ref) -> dict[str, str]:
    return {"workload": str(ref.kind), "namespace": ref.namespace, "name": ref.name}


def _text(ref: Ref) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name}"
