"""What training code imports must run anywhere."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import berth.worker

FILES = sorted(Path(berth.worker.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_imports_the_standard_library_alone(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("berth.worker"), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_python_3_9(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 9))
