"""Pages that can be run: files and commands, in the order in which a reader meets them.

A block of YAML with a title is a file of that name. In a block of `console`, a line that begins with `$ ` is a command
(lines that begin with `> ` go on with it), and what stands below it is what it prints: `...` stands for anything, any
blank for any number of them. Other blocks are not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class File:
    """A file that the reader is to write."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command for a shell, and what it is said to print."""

    line: str
    output: str

    def printed(self, text: str) -> bool:
        """Whether this is what it is said to print; where nothing is said, anything is.

        >>> Command("", "a  ... c").printed("a b\\n c\\n"), Command("", "a ... c").printed("a b")
        (True, False)
        """
        pieces = (r"\s+".join(map(re.escape, piece.split())) for piece in self.output.split("..."))
        return not self.output.strip() or bool(re.fullmatch(r"\s*.*\s*".join(pieces), text.strip(), re.DOTALL))


def steps(page: str) -> Iterator[File | Command]:
    """What a page has its reader do.

    >>> list(steps("```console\\n$ echo a \\\\\\n>   b\\na b\\n$ true\\n```\\n"))
    [Command(line='echo a \\\\\\n  b', output='a b'), Command(line='true', output='')]
    """
    for language, title, text in BLOCK.findall(page):
        if language == "yaml" and title:
            yield File(title, text)
        elif language == "console":
            yield from _commands(text)


def _commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        while rest and rest[0].startswith("> "):
            first += "\n" + rest.pop(0)[2:]
        yield Command(first, "\n".join(rest))
