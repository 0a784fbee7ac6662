"""docs/cli.md says what the commands are."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from berth.cli import names
from berth.cli.main import app
from berth.cli.reference import with_reference
from tests.cli.clusters import Cli, a_cluster
from tests.control.builders import a_service, a_training_job

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = re.findall("^### berth (.+)$", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)


def test_the_reference_is_up_to_date() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    assert text == with_reference(text), "run python -m berth.cli.reference docs/cli.md"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "version"])
def test_every_command_says_with_what_status_it_ends(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Exit status: 0" in " ".join(result.output.split())


def test_kubectl_has_it_as_a_plugin() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-berth"] == scripts["berth"]
    module, _, name = scripts["kubectl-berth"].partition(":")
    assert getattr(import_module(module), name) is app


async def completed(cli: Cli, *words: str) -> list[str]:
    """What a shell is told that these words may go on with."""
    line = " ".join(["berth", *words[:-1], f"--kubeconfig={cli.kubeconfig}", words[-1]])
    variables = {"_BERTH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) + 1)}
    import asyncio

    result = await asyncio.to_thread(CliRunner().invoke, app, [], env=variables, prog_name="berth")
    return result.output.split()


async def test_a_shell_completes_the_names_of_workloads(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as cli:
        cli.lists.put("trainingjobs", a_training_job("llm"), a_training_job("lama"))
        cli.lists.put("inferenceservices", a_service("chat"))
        assert set(await completed(cli, "explain", "tj/l")) == {"tj/llm", "tj/lama"}
        assert await completed(cli, "suspend", "ll") == ["llm"]
        assert set(await completed(cli, "explain", "")) == {"tj/llm", "tj/lama", "infer/chat"}


async def test_without_a_cluster_nothing_is_completed_and_nothing_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "COMPLETION_SECONDS", 0.0)
    async with a_cluster(tmp_path) as cli:
        cli.lists.put("trainingjobs", a_training_job("llm"))
        assert await completed(cli, "suspend", "l") == []
