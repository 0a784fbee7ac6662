"""The Docker engine under kind: this machine's own where one answers, else Debian's, run for as long as needed.

Our own engine is Debian's dockerd, unpacked into the cache and started on a socket of its own. It sets no
iptables rule and no bridge but kind's, so that stopping it leaves nothing behind. Nodes reach each other over
that bridge, and this machine reaches them by published ports; nodes reach nothing outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from e2e.cluster import engine_packages, processes
from e2e.cluster.binaries import cache_folder
from e2e.cluster.errors import ClusterError
from e2e.cluster.waiting import wait_until

ANSWER_SECONDS = 30
START_SECONDS = 60
STOP_SECONDS = 60  # nodes get 10 s each to shut down if any is left
UNPACKED = ("docker.io", "containerd", "runc", "tini")
INSTALLED = ("iptables", "libdevmapper1.02.1", "libseccomp2", "libsystemd0")  # libraries, and nodes' own DNS rules
CAP_SYS_ADMIN = 21  # its bit in the masks of /proc/self/status
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024  # a node takes about 20 of the usual 128: the seventh's kube-proxy gets no more
RUNC_WRAPPER = Path(__file__).parent / "kindnode" / "runc_wrapper.py"


class EngineError(ClusterError):
    """No Docker engine could be used; the message says why."""


@dataclass(frozen=True)
class Engine:
    """A running Docker engine; `environment` is what docker and kind need to reach it."""

    environment: Mapping[str, str]
    own: bool

    def docker(self, *arguments: str, stdin: IO[bytes] | None = None) -> str:
        """Run the docker command and return its output, stripped.

        Raises:
            EngineError: it failed; the message ends with what it printed.
        """
        command = ["docker", *arguments]
        done = subprocess.run(command, env=self.environment, stdin=stdin, capture_output=True)
        if done.returncode != 0:
            raise EngineError(f"{' '.join(command)} failed: {done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout.decode().strip()

    def has_image(self, tag: str) -> bool:
        return bool(self.docker("image", "ls", "--quiet", tag))

    def nodes(self) -> list[str]:
        """The nodes of all kind clusters on this engine, running or not."""
        return self.docker("ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster").split()


def why_unavailable() -> str | None:
    """Why no engine can be had on this machine, or None if one can."""
    if answers() or (engine_packages.is_debian_with_root() and _may_mount()):
        return None
    return "no Docker engine answers (`docker version`), and starting one takes Debian and a root that may mount"


def find() -> Engine | None:
    """The engine that runs now, this machine's or our own; nothing is started."""
    if answers():
        return Engine(environment=dict(os.environ), own=False)
    if not (_run_folder() / "docker.sock").exists():
        return None
    engine = _own_engine()
    return engine if answers(engine.environment) else None


@contextmanager
def lease() -> Iterator[Engine]:
    """Use an engine for a while, starting our own if none runs.

    Our own is stopped at the end, unless a cluster's nodes run on it or another process holds a lease.

    Raises:
        EngineError: there is none and none can be started.
    """
    if answers():
        yield Engine(environment=dict(os.environ), own=False)
        return
    if reason := why_unavailable():
        raise EngineError(reason)
    _home().mkdir(parents=True, exist_ok=True)
    with (_home() / "lock").open("w") as lock:
        engine = _start_or_join(lock)
        try:
            yield engine
        finally:
            _leave(engine, lock)


def _home() -> Path:
    return cache_folder() / "engine"


def _run_folder() -> Path:
    """Sockets and state of our engine: a short path, since a socket's may have 107 characters at most."""
    return Path("/run") / f"berth-engine-{hashlib.sha256(bytes(_home())).hexdigest()[:8]}"


def _own_engine() -> Engine:
    unpacked = engine_packages.unpack(*UNPACKED)
    path = f"{unpacked}/usr/bin:{unpacked}/usr/sbin:{os.environ['PATH']}:/usr/sbin:/sbin"
    socket = f"unix://{_run_folder()}/docker.sock"
    environment = os.environ | {"PATH": path, "DOCKER_HOST": socket, "DOCKER_BUILDKIT": "0"}
    environment.pop("DOCKER_CONTEXT", None)
    return Engine(environment=environment, own=True)


def _start_or_join(lock: IO[str]) -> Engine:
    """Return our engine, up, with the lock held shared: whoever starts or stops it needs the lock alone."""
    engine_packages.install(*INSTALLED)
    engine = _own_engine()
    while True:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if answers(engine.environment):
            return engine
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answers(engine.environment):
            _start(engine)


def _leave(engine: Engine, lock: IO[str]) -> None:
    with suppress(BlockingIOError):  # another process holds a lease, and leaves after us
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not engine.nodes():
            _stop(engine)


def _start(engine: Engine) -> None:
    home, run = _home(), _run_folder()
    processes.stop(home, processes.recorded(home), grace_seconds=STOP_SECONDS)  # one that does not answer
    _clean_up(run)
    run.mkdir(mode=0o700, parents=True)
    _raise_inotify_limit(run)
    processes.log_of(home, "dockerd").unlink(missing_ok=True)
    (run / "daemon.json").write_text(json.dumps(_configuration(engine, run)))
    dockerd = str(shutil.which("dockerd", path=engine.environment["PATH"]))
    command = [dockerd, "--config-file", f"{run}/daemon.json"]
    processes.spawn(home, "dockerd", command, environment=engine.environment)
    wait_until(partial(answers, engine.environment), "Debian's dockerd answers", folder=home, seconds=START_SECONDS)


def _configuration(engine: Engine, run: Path) -> dict[str, object]:
    runc = shutil.which("runc", path=engine.environment["PATH"])
    wrapper = {"path": sys.executable, "runtimeArgs": ["-IS", str(RUNC_WRAPPER), str(runc)]}
    return {
        "data-root": str(_home() / "data"),
        "exec-root": str(run / "exec"),
        "pidfile": str(run / "dockerd.pid"),
        "hosts": [f"unix://{run}/docker.sock"],
        "storage-driver": "overlay2",
        "bridge": "none",
        "iptables": False,
        "ip-forward": False,
        "dns": ["127.0.0.1"],  # names from outside: refused at once, where this machine's resolver would time out
        "dns-search": ["."],
        "default-address-pools": [{"base": str(free_subnet(_routes())), "size": 24}],
        "runtimes": {"berth": wrapper},
        "default-runtime": "berth",
    }


def _stop(engine: Engine) -> None:
    """Remove the bridges of its networks and stop our engine."""
    engine.docker("network", "prune", "--force")
    processes.stop(_home(), processes.recorded(_home()), grace_seconds=STOP_SECONDS)
    _clean_up(_run_folder())


def _raise_inotify_limit(run: Path) -> None:
    """Allow for many nodes, and note what was before; a machine that forbids it can still hold a few."""
    before = INOTIFY_LIMIT.read_text()
    with suppress(OSError):
        if int(before) < INOTIFY_INSTANCES:
            INOTIFY_LIMIT.write_text(str(INOTIFY_INSTANCES))
            (run / "inotify-before").write_text(before)


def _clean_up(run: Path) -> None:
    """Undo what a stopped engine, or one that was killed, has left: mounts and the raised limit."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith((f"{run}/", f"{_home()}/data")):
            subprocess.run(["umount", "--lazy", mount], check=True)
    if (run / "inotify-before").exists():
        INOTIFY_LIMIT.write_text((run / "inotify-before").read_text())
    shutil.rmtree(run, ignore_errors=True)


def _may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN, which root in a container usually lacks."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


def answers(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a Docker engine, not only its command, is there.

    Raises:
        EngineError: it is there, and says nothing.
    """
    if shutil.which("docker", path=environment.get("PATH")) is None:
        return False
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(asked, env=environment, capture_output=True, timeout=ANSWER_SECONDS).returncode == 0
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"a Docker engine hangs: no answer to `docker version` in {ANSWER_SECONDS} s") from error


def _routes() -> list[ipaddress.IPv4Network]:
    """The destinations this machine has routes to, the default left out."""
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((destination, mask.bit_count())))
    return found


def free_subnet(taken: list[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first /16 of the private 172.16.0.0/12 that overlaps with no network in use.

    >>> free_subnet([ipaddress.IPv4Network("172.16.4.0/22"), ipaddress.IPv4Network("172.17.0.0/16")])
    IPv4Network('172.18.0.0/16')
    """
    private = ipaddress.IPv4Network("172.16.0.0/12").subnets(new_prefix=16)
    for candidate in private:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise EngineError("every subnet of 172.16.0.0/12 is in use on this machine")
