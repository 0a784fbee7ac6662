"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_source_root_is_no_package_which_would_shadow_the_standard_library() -> None:
    assert (ROOT / "operator" / "berth" / "__init__.py").exists()
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_dependency_has_hashes_and_none_an_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pinned = re.findall(r"^(\S+)==", text, re.MULTILINE)
    assert len(pinned) > 20
    assert len(re.findall(r"^\S+==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(pinned)
    assert "://" not in text
