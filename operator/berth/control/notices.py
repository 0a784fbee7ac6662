"""What an agent needs of the cloud that its node runs in: word of the machine's end."""

from __future__ import annotations

from typing import Protocol

from berth.model.nodes import Interruption


class NoAnswer(Exception):
    """A metadata service gave no usable answer: nothing came, it refused, or what it said is not what it documents."""


class Notices(Protocol):
    """One thing that a cloud's metadata service says of the machine."""

    @property
    def name(self) -> str:
        """What it is, in words."""
        ...

    @property
    def pause_seconds(self) -> float:
        """How long to wait after an answer before asking again."""
        ...

    async def ask(self) -> Interruption | None:
        """What is about to happen to the machine; None: nothing. It may wait for news.

        Raises NoAnswer.
        """
        ...
