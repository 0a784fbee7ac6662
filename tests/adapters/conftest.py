from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.adapters.virtual import a_virtual_loop

IN_VIRTUAL_TIME = ("test_lease.py",)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops that tests run in."""
    if item.path.name in IN_VIRTUAL_TIME:
        return {"virtual": a_virtual_loop}
    return {"real": asyncio.new_event_loop}
