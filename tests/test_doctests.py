"""Every example in a docstring holds."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import berth

MODULES = [module.name for module in pkgutil.walk_packages(berth.__path__, "berth.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    assert sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES) >= 5
