"""kind's node image, for a machine that cannot pull it: Debian's packages, kind's own files, our binaries.

It follows images/base/Dockerfile of the kind release in `modules/kind` and differs where this page says so:
images of the control plane lie in the node as files and are imported when it starts, kube-proxy is a service of
the node, and the pod network is set up from outside (`kind_network.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from e2e.cluster import binaries, engine_packages, images_archive
from e2e.cluster.engine import Engine, EngineError
from e2e.cluster.engine_lock import locked
from e2e.cluster.images_archive import Entry, write_image, write_layer

FILES = Path(__file__).parent / "kindnode"
PACKAGES = (
    *("bash", "ca-certificates", "conntrack", "e2fsprogs", "ethtool", "hostname", "iproute2", "iptables", "jq"),
    *("kmod", "libseccomp2", "mount", "nftables", "procps", "runc", "systemd", "util-linux"),
)
NODE_BINARIES = {  # where kind's own image has them
    **dict.fromkeys(("containerd", "containerd-shim-runc-v2", "ctr"), "usr/local/bin"),
    **dict.fromkeys(("kubeadm", "kubectl", "kubelet", "kube-proxy"), "usr/bin"),
    **dict.fromkeys(("cni/host-local", "cni/loopback", "cni/portmap", "cni/ptp"), "opt/cni/bin"),
}
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "coredns", "pause")
ENTRYPOINTS = {"coredns": "/coredns", "pause": "/pause"}  # the pods of the others name their command
ENABLED = ("containerd", "kubelet", "preload-images", "undo-mount-hacks")


def ensure(engine: Engine) -> str:
    """Have the engine hold the node image, built once into the cache, and return its tag."""
    programs = binaries.ensure(*NODE_BINARIES, *CONTROL_PLANE)
    key = _key(programs)
    tag = f"berth/node:{key}"
    archive = binaries.cache_folder() / f"node-{key}.tar"
    with locked(archive.with_suffix(".lock")):
        if not engine.has_image(tag):
            if not archive.exists():
                _build(archive, tag, programs)
            engine.docker("load", "--quiet", "--input", str(archive))
            _forget_others(engine, archive, tag)
    return tag


def _forget_others(engine: Engine, archive: Path, tag: str) -> None:
    """Delete node images made of other files: they take 0.9 GB each, and twice."""
    for other in set(archive.parent.glob("node-*.tar")) - {archive}:
        other.unlink(missing_ok=True)
    for reference in engine.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", "berth/node").split():
        if reference != tag:
            with suppress(EngineError):  # nodes of a running cluster are made of it
                engine.docker("image", "rm", reference)


def _key(programs: Path) -> str:
    """A digest of what the image is made of: the binaries' folder is named by theirs."""
    digest = hashlib.sha256(str(programs).encode())
    for path in (Path(__file__), Path(images_archive.__file__), *sorted(FILES.iterdir())):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(archive: Path, tag: str, programs: Path) -> None:
    debian = engine_packages.rootfs(PACKAGES, hook=FILES / "trim-rootfs.sh")
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        layer = Path(scratch, "kubernetes.tar")
        write_layer(layer, _entries(programs, Path(scratch)))
        config = {
            "Env": ["container=docker", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
            "StopSignal": "SIGRTMIN+3",
        }
        write_image(archive, tag, [debian, layer], config)


def _entries(programs: Path, scratch: Path) -> Iterator[Entry]:
    """Everything above Debian's packages."""
    references = _references(programs)
    yield from _kind_files(pause=references["pause"])
    yield from _our_files()
    yield Entry(path="usr/sbin/init", link="/usr/lib/systemd/systemd")
    yield Entry(path="etc/systemd/system/systemd-binfmt.service", link="/dev/null")  # it is the machine's
    for unit in ENABLED:
        path = f"etc/systemd/system/multi-user.target.wants/{unit}.service"
        yield Entry(path=path, link=f"/etc/systemd/system/{unit}.service")
    for name, folder in NODE_BINARIES.items():
        yield Entry(path=f"{folder}/{Path(name).name}", content=programs / name, mode=0o755)
    yield Entry(path="kind/version", content=binaries.KUBERNETES_VERSION.encode())
    yield Entry(path="etc/containerd/cri-base.json", content=_container_defaults(programs))
    for name in CONTROL_PLANE:
        image = scratch / f"{name}.tar"
        _write_program_image(image, references[name], programs / name)
        yield Entry(path=f"kind/images/{name}.tar", content=image)


def _kind_files(*, pause: str) -> Iterator[Entry]:
    asked = ["go", "mod", "download", "-json", "sigs.k8s.io/kind"]
    module = subprocess.run(asked, cwd=binaries.MODULES / "kind", capture_output=True, check=True).stdout
    base = Path(json.loads(module)["Dir"], "images", "base", "files")
    for source in sorted(path for path in base.rglob("*") if path.is_file()):
        path, content = source.relative_to(base).as_posix(), source.read_bytes()
        if path == "etc/containerd/config.toml":
            # Without CAP_SYS_RESOURCE an OOM score can't be lowered: "can't get final child's PID from pipe".
            content = content.replace(b"restrict_oom_score_adj = false", b"restrict_oom_score_adj = true")
            content = re.sub(rb'(?m)(sandbox_image = )".*"', rb'\1"' + pause.encode() + b'"', content)
        yield Entry(path=path, content=content, mode=0o755 if "bin/" in path else 0o644)


def _our_files() -> Iterator[Entry]:
    for unit in ("preload-images", "pod-network", "kube-proxy"):
        yield Entry(path=f"etc/systemd/system/{unit}.service", content=FILES / f"{unit}.service")
    after_images = "etc/systemd/system/kubelet.service.d/20-after-images.conf"
    yield Entry(path=after_images, content=FILES / "kubelet-after-images.conf")
    yield Entry(path="kind/bin/preload-images.sh", content=FILES / "preload-images.sh", mode=0o755)
    yield Entry(path="kind/kube-proxy.yaml", content=FILES / "kube-proxy.yaml")


def _references(programs: Path) -> dict[str, str]:
    """The images that kubeadm will ask for, by program; etcd's and CoreDNS's tags may differ from the binary's."""
    asked = ("config", "images", "list", "--kubernetes-version", binaries.KUBERNETES_VERSION)
    command: list[str | Path] = [programs / "kubeadm", *asked]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {reference.rpartition("/")[2].partition(":")[0]: reference for reference in listed}


def _container_defaults(programs: Path) -> bytes:
    """What every container starts from: containerd's own, without resource limits and with kind's hook."""
    output = subprocess.run([programs / "ctr", "oci", "spec"], capture_output=True, check=True).stdout
    specification = json.loads(output)
    specification["process"].pop("rlimits", None)
    hooks = specification.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    return json.dumps(specification).encode()


def _write_program_image(target: Path, reference: str, program: Path) -> None:
    """An image that holds one static binary."""
    layer = target.with_suffix(".layer")
    entrypoint = ENTRYPOINTS.get(program.name)
    path = entrypoint.lstrip("/") if entrypoint else f"usr/local/bin/{program.name}"
    write_layer(layer, [Entry(path=path, content=program, mode=0o755)])
    config: dict[str, object] = {"Env": ["PATH=/usr/local/bin"], "WorkingDir": "/"}
    write_image(target, reference, [layer], config | ({"Entrypoint": [entrypoint]} if entrypoint else {}))
    layer.unlink()
