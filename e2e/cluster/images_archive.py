"""Write container images as `docker load` and `ctr images import` read them, without an engine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's name -> OCI's


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One path of a layer: a file's content, or a symbolic link's target."""

    path: str
    content: Path | bytes = b""
    mode: int = 0o644
    link: str = ""


def write_layer(target: Path, entries: Iterable[Entry]) -> None:
    """Write a layer, owned by root, with every parent folder (an engine would make them unreadable)."""
    with tarfile.open(target, "w") as tar:
        known: set[PurePosixPath] = set()
        for entry in sorted(entries, key=lambda entry: entry.path):
            for parent in reversed(PurePosixPath(entry.path).parents[:-1]):
                if parent not in known:
                    known.add(parent)
                    _add(tar, str(parent), mode=0o755, kind=tarfile.DIRTYPE)
            if entry.link:
                _add(tar, entry.path, kind=tarfile.SYMTYPE, link=entry.link)
            elif isinstance(entry.content, bytes):
                _add(tar, entry.path, mode=entry.mode, size=len(entry.content), data=io.BytesIO(entry.content))
            else:
                with entry.content.open("rb") as data:
                    _add(tar, entry.path, mode=entry.mode, size=os.fstat(data.fileno()).st_size, data=data)


def write_image(target: Path, tag: str, layers: Sequence[Path], config: Mapping[str, object]) -> None:
    """Write an image of uncompressed layers; `config` is its OCI configuration: Entrypoint, Env, ..."""
    digests = [f"sha256:{_sha256(layer)}" for layer in layers]
    image = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    described = json.dumps(image).encode()
    name = f"{hashlib.sha256(described).hexdigest()}.json"
    names = [f"{position}.tar" for position in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": names}]).encode()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with tarfile.open(partial, "w") as tar:
        for path, data in ((name, described), ("manifest.json", manifest)):
            _add(tar, path, size=len(data), data=io.BytesIO(data))
        for path, layer in zip(names, layers, strict=True):
            tar.add(layer, path)
    partial.rename(target)


def _add(
    tar: tarfile.TarFile,
    path: str,
    *,
    mode: int = 0o644,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    size: int = 0,
    data: io.BufferedIOBase | None = None,
) -> None:
    member = tarfile.TarInfo(path)
    member.mode, member.type, member.linkname, member.size = mode, kind, link, size
    tar.addfile(member, data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
