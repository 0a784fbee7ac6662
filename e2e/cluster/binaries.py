"""Build the cluster's programs from pinned Go modules, once, into a cache keyed by what they are built from.

    >>> folder = ensure("kube-apiserver", "etcd")      # doctest: +SKIP
    >>> folder / "etcd"                                # doctest: +SKIP

Each folder of `modules/` is a Go module of its own, since the dependencies of different projects clash. A
binary is cached by its module's files and the Go toolchain, so that changing one module rebuilds it alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import BuildError

GO_NEEDED = (1, 26)
MODULES = Path(__file__).parent / "modules"
LOG_TAIL_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Program:
    """How one binary is built; `cold_seconds` is what it takes on 2 cores without a Go build cache."""

    module: str
    package: str
    cold_seconds: int
    variables: Mapping[str, str]

    @property
    def ldflags(self) -> str:
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables.items())])


KUBERNETES_VERSION = "v1.36.3"
_component = "k8s.io/component-base/version"
KUBERNETES_VARIABLES = {  # without them client and server call themselves v0.0.0
    f"{_component}.gitVersion": KUBERNETES_VERSION,
    f"{_component}.gitMajor": "1",
    f"{_component}.gitMinor": "36",
    f"{_component}.gitTreeState": "clean",
    f"{_component}.gitCommit": "unknown",
}
HELM_VARIABLES = {"helm.sh/helm/v4/internal/version.version": "v4.3.1"}
CONTAINERD_VARIABLES = {"github.com/containerd/containerd/v2/version.Version": "v2.4.2"}


def _program(module: str, package: str, cold_seconds: int, variables: Mapping[str, str] | None = None) -> Program:
    return Program(module=module, package=package, cold_seconds=cold_seconds, variables=variables or {})


def _kubernetes(name: str, cold_seconds: int) -> Program:
    return _program("k8s", f"k8s.io/kubernetes/cmd/{name}", cold_seconds, KUBERNETES_VARIABLES)


def _containerd(name: str, cold_seconds: int) -> Program:
    package = f"github.com/containerd/containerd/v2/cmd/{name}"
    return _program("containerd", package, cold_seconds, CONTAINERD_VARIABLES)


def _cni(path: str) -> Program:
    return _program("cni", f"github.com/containernetworking/plugins/plugins/{path}", 5)


# name -> how to build it. A program of our own: a folder in `modules/` with go.mod and main.go, package ".".
PROGRAMS: dict[str, Program] = {
    "kube-apiserver": _kubernetes("kube-apiserver", 280),
    "kube-controller-manager": _kubernetes("kube-controller-manager", 70),
    "kube-scheduler": _kubernetes("kube-scheduler", 10),
    "kube-proxy": _kubernetes("kube-proxy", 10),
    "kubelet": _kubernetes("kubelet", 25),
    "kubeadm": _kubernetes("kubeadm", 10),
    "kubectl": _kubernetes("kubectl", 30),
    "etcd": _program("etcd", "go.etcd.io/etcd/server/v3", 50),
    "kwok": _program("kwok", "sigs.k8s.io/kwok/cmd/kwok", 115),
    "helm": _program("helm", "helm.sh/helm/v4/cmd/helm", 60, HELM_VARIABLES),
    "kind": _program("kind", "sigs.k8s.io/kind", 20),
    "containerd": _containerd("containerd", 60),
    "containerd-shim-runc-v2": _containerd("containerd-shim-runc-v2", 10),
    "ctr": _containerd("ctr", 10),
    "coredns": _program("coredns", ".", 60),
    "pause": _program("pause", ".", 5),
    "cni/host-local": _cni("ipam/host-local"),
    "cni/loopback": _cni("main/loopback"),
    "cni/ptp": _cni("main/ptp"),
    "cni/portmap": _cni("meta/portmap"),
}


def ensure(*names: str) -> Path:
    """Build what is missing of the named programs and return a folder that holds them all, by name.

    Safe to call from several processes at once. Progress goes to stderr, and only when something is built.

    Raises:
        KeyError: a name that is not in `PROGRAMS`.
        BuildError: no Go, too old a Go, or a failed build.
    """
    stores = {module: _store(module) for module in {PROGRAMS[name].module for name in names}}
    built = {name: stores[PROGRAMS[name].module] / name for name in sorted(set(names))}
    missing = [name for name in built if not built[name].exists()]
    for position, name in enumerate(missing, start=1):
        with _locked(built[name].parent):
            if not built[name].exists():  # another process may have built it while this one waited
                _say(f"building {name} ({position} of {len(missing)}), about {_cold(name)} cold")
                _build(PROGRAMS[name], built[name])
    return _gather(built)


def cache_folder() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/berth`: what can be deleted at any time and is then rebuilt."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth"


def module_key(module: Path, *, ldflags: Sequence[str], toolchain: str) -> str:
    """A digest of everything that decides the bytes of a module's binaries."""
    digest = hashlib.sha256()
    for text in (toolchain, *sorted(ldflags)):
        digest.update(text.encode() + b"\0")
    for path in sorted(p for p in module.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(module)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _store(module: str) -> Path:
    flags = {program.ldflags for program in PROGRAMS.values() if program.module == module}
    key = module_key(MODULES / module, ldflags=sorted(flags), toolchain=_toolchain(module))
    return cache_folder() / f"bin-{module}-{key}"


def _gather(built: Mapping[str, Path]) -> Path:
    """A folder of hard links, named by what it holds: whoever copies from it gets files, not links."""
    content = "\0".join(f"{name}={path}" for name, path in built.items())
    folder = cache_folder() / f"bin-set-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    for name, path in built.items():
        target = folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                os.link(path, partial)
            except PermissionError:  # Linux links no files of another owner, as a cache handed over may hold
                shutil.copy2(path, partial)
            os.replace(partial, target)
    return folder


def _build(program: Program, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    log = target.with_name(f"{target.name}.log")
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    command += ["-ldflags", program.ldflags, "-o", str(partial), program.package]
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    with log.open("w") as output:
        done = subprocess.run(command, cwd=MODULES / program.module, env=environment, stdout=output, stderr=output)
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise BuildError(f"building {target.name} failed; the end of {log}:\n{tail}")
    log.unlink()
    os.replace(partial, target)


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the store's lock, so that a binary is built by one process at a time."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that builds into {store}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _toolchain(module: str) -> str:
    """The Go version and platform that the module is built with, such as "go1.26.0 linux amd64"."""
    needed = ".".join(map(str, GO_NEEDED))
    hint = f"Go {needed} or newer builds the test cluster's programs (see https://go.dev/dl)"
    if shutil.which("go") is None:
        raise BuildError(f"{hint}; there is no `go` on PATH")
    asked = ["go", "env", "GOVERSION", "GOOS", "GOARCH"]
    done = subprocess.run(asked, cwd=MODULES / module, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{hint}; `go env` says: {done.stderr.strip()}")
    version, system, machine = done.stdout.split()
    if go_release(version) < GO_NEEDED:
        raise BuildError(f"{hint}; the `go` on PATH is {version}")
    return f"{version} {system} {machine}"


def go_release(version: str) -> tuple[int, int]:
    """The release a Go version belongs to.

    >>> go_release("go1.26.8"), go_release("go1.27rc1")
    ((1, 26), (1, 27))
    """
    major, minor = version.removeprefix("go").split(".")[:2]
    digits = minor[: next((i for i, c in enumerate(minor) if not c.isdigit()), len(minor))]
    return int(major), int(digits)


def _cold(name: str) -> str:
    seconds = PROGRAMS[name].cold_seconds
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
