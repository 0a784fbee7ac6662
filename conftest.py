"""What holds for all tests: where kind can't run, CI fails; elsewhere its tests are left out, with the reason."""

from __future__ import annotations

import os
from functools import cache

import pytest

from e2e.cluster.engine import why_unavailable

no_kind = cache(why_unavailable)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of a test on kind, which would start an engine."""
    if item.get_closest_marker("kind") and (reason := no_kind()):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no kind: {reason}")
