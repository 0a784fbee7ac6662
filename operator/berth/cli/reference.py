"""docs/cli.md, made from the commands themselves: `python -m berth.cli.reference docs/cli.md` brings it up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer.main

BEGIN = "<!-- Made by python -m berth.cli.reference: change the commands instead. -->"


def reference() -> str:
    """What the commands are, as Markdown."""
    from berth.cli.main import app

    lines = [BEGIN, ""]
    for path, command in _commands("berth", typer.main.get_command(app)):
        lines += [f"### {path}", "", *_text(command.help or ""), *_arguments(command)]
    return "\n".join(lines).rstrip() + "\n"


def with_reference(text: str) -> str:
    """A document with its reference, which is its end, made anew."""
    return text.partition(BEGIN)[0] + reference()


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    found = getattr(command, "commands", None)
    if found is None:
        yield path, command
        return
    for name, one in sorted(found.items()):
        if not one.hidden:
            yield from _commands(f"{path} {name}", one)


def _text(help: str) -> Iterator[str]:
    for paragraph in help.strip().split("\n\n"):
        yield " ".join(line.strip() for line in paragraph.splitlines())
        yield ""


def _arguments(command: Any) -> list[str]:
    rows = [_row(one) for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
    return ["| | |", "|---|---|", *rows, ""] if rows else []


def _row(one: Any) -> str:
    said = (one.help or "").replace("\\[", "[").replace("|", "\\|")
    if one.param_type_name == "argument":
        needed = "" if one.required else " May be left out."
        return f"| `{one.metavar or one.name.upper()}` | {said}{needed} |"
    names = ", ".join([*one.opts, *one.secondary_opts])
    choices = "|".join(one.default.__class__) if isinstance(one.default, StrEnum) else ""
    value = "" if one.is_flag else f" {one.metavar or choices or one.name.upper()}"
    default = _default(one)
    return f"| `{(names + value).replace('|', chr(92) + '|')}` | {said}{default} |"


def _default(one: Any) -> str:
    value = one.default
    if one.required:
        return " Required."
    if one.is_flag or callable(value) or value in (None, "", (), []):
        return ""
    return f" Default: {getattr(value, 'value', value)}."


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_reference(file.read_text()))
