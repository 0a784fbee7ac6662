"""What the cache of the cluster's programs depends on, and what is said when one can't be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import binaries
from e2e.cluster.binaries import MODULES, PROGRAMS, Program, ensure, go_release, module_key
from e2e.cluster.errors import BuildError

GO = "go1.26.0 linux amd64"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "go.mod").write_text("module berth.dev/hello\n\ngo 1.26.0\n")
    (folder / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n')
    return folder


@pytest.fixture
def hello(module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`hello` as the only program, with a cache of its own."""
    program = Program(module="hello", package=".", cold_seconds=1, variables={})
    monkeypatch.setattr(binaries, "MODULES", tmp_path)
    monkeypatch.setattr(binaries, "PROGRAMS", {"hello": program})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return module


def key(module: Path, *, ldflags: tuple[str, ...] = ("-s",), toolchain: str = GO) -> str:
    return module_key(module, ldflags=ldflags, toolchain=toolchain)


def test_the_same_module_has_the_same_key(module: Path) -> None:
    assert key(module) == key(module)


@pytest.mark.parametrize("file", ["go.mod", "main.go", "inner/more.go"])
def test_any_changed_or_new_file_changes_the_key(module: Path, file: str) -> None:
    before = key(module)
    path = module / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("package more\n")

    assert key(module) != before


def test_flags_and_toolchain_change_the_key(module: Path) -> None:
    assert len({key(module), key(module, ldflags=("-w",)), key(module, toolchain="go1.27.0 linux amd64")}) == 3


def test_every_program_has_a_pinned_module() -> None:
    for name, program in PROGRAMS.items():
        assert (MODULES / program.module / "go.mod").exists(), name


def test_a_program_is_built_once_and_then_taken_from_the_cache(hello: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = ensure("hello")
    assert (folder / "hello").stat().st_size > 0
    assert "building hello (1 of 1), about 1 s cold" in capfd.readouterr().err

    assert ensure("hello") == folder
    assert capfd.readouterr().err == ""


def test_a_failed_build_ends_with_the_compilers_words_and_leaves_no_binary(hello: Path) -> None:
    (hello / "main.go").write_text("package main\n\nfunc main() { undefinedThing() }\n")

    with pytest.raises(BuildError, match="undefined: undefinedThing"):
        ensure("hello")
    with pytest.raises(BuildError, match="undefined: undefinedThing"):
        ensure("hello")


def test_a_missing_go_is_named_with_the_version_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BuildError, match=r"Go 1\.26 or newer .* no `go` on PATH"):
        ensure("kubectl")


def test_an_old_go_is_named_with_the_version_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.19.8 linux amd64\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    with pytest.raises(BuildError, match=r"Go 1\.26 or newer .* is go1\.19\.8"):
        ensure("kubectl")


def test_prereleases_belong_to_their_release() -> None:
    assert go_release("go1.27rc1") == (1, 27)
    assert go_release("go1.26") == (1, 26)
