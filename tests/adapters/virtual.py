"""An event loop whose clock jumps to the next timer whenever nothing else is left to do: hours pass at once."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Looks for I/O that is there already, and lets the time pass that it was told to wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """What is ready; without a time-out, as any selector."""
        if timeout is None:
            return super().select()
        ready = super().select(0)
        if not ready:
            self.now += max(timeout, 0.0)
        return ready


def a_virtual_loop() -> asyncio.AbstractEventLoop:
    """A loop at second 0."""
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    return loop
