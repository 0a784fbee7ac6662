"""What is wrong with an object, said by field and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import ValidationError

_UNION_TAGS = (
    "int",
    "str",
    "float",
)  # pydantic adds the member of a union to the path; fields of ours have other names


class Misconfigured(ValueError):
    """A field that can't stay as it is, and what would do instead."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def path(*parts: str | int) -> str:
    """A field's path as Kubernetes writes it.

    >>> path("spec", "containers", 0, "resources", "limits", "nvidia.com/gpu")
    'spec.containers[0].resources.limits[nvidia.com/gpu]'
    """
    words = (f".{p}" if isinstance(p, str) and re.fullmatch(r"\w+", p) else f"[{p}]" for p in parts)
    return "".join(words).lstrip(".")


def first_problem(error: ValidationError, *under: str) -> Misconfigured:
    """The first thing that a model found wrong, with the path from the object's root."""
    found = error.errors(include_url=False)[0]
    parts: Iterable[str | int] = [part for part in found["loc"] if part not in _UNION_TAGS]
    return Misconfigured(path(*under, *parts), _in_our_words(found["type"], found["msg"]))


def _in_our_words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field: check its spelling and place"
    if kind == "missing":
        return "required, but missing"
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
