"""All tests in parts, side by side: none is left out, and the end tells of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.suite import PARTS, main

TESTS = """
import os, pytest
def test_quick(): pass
@pytest.mark.cluster
def test_on_an_api_server(): pass
@pytest.mark.kind
def test_on_a_kubelet(): {kubelet}
"""


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("kind", [False, True])
def test_every_test_is_in_one_part(cluster: bool, kind: bool) -> None:
    marks = {"cluster": cluster, "kind": kind}
    assert [eval(expression, marks) for expression in PARTS.values()].count(True) == 1


@pytest.mark.parametrize(
    ("kubelet", "code", "end"),
    [
        ("pass", 0, ["3 passed"]),
        ("assert False", 1, ["FAILED test_it.py::test_on_a_kubelet - assert False", "1 failed, 2 passed"]),
        ("os._exit(7)", 1, ["ERROR kind ended with status 7 and no summary", "2 passed"]),
    ],
)
def test_the_end_tells_of_every_part(
    kubelet: str,
    code: int,
    end: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS.format(kubelet=kubelet))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  cluster\n  kind\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer to load than all else
    monkeypatch.chdir(tmp_path)
    assert main() == code
    *problems, last = capsys.readouterr().out.splitlines()[-len(end) :]
    assert problems == end[:-1]
    assert f" {end[-1]} in " in last
