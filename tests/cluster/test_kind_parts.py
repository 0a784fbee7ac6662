"""What the kind provider computes, and its OCI runtime wrapper, without a cluster."""

from __future__ import annotations

import io
import ipaddress
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import engine, images
from e2e.cluster.engine import RUNC_WRAPPER, EngineError, free_subnet
from e2e.cluster.images_archive import Entry, write_image, write_layer
from e2e.cluster.kind import POD_NETWORK, configuration
from e2e.cluster.kind_network import Node, cni_configuration, nodes_of, setup_script

SYS_RESOURCE = 1 << 24


def a_node(name: str, number: int) -> Node:
    return Node(name=name, address=f"172.16.0.{number}", pod_subnet=f"10.128.{number}.0/24")


def networks(*texts: str) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(text) for text in texts]


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "172.16.0.0/16"),
        (["192.168.1.0/24", "10.0.0.0/8"], "172.16.0.0/16"),
        (["172.16.0.0/14"], "172.20.0.0/16"),
        (["172.16.5.7/32", "172.18.0.0/24"], "172.17.0.0/16"),
    ],
    ids=["nothing taken", "only others taken", "a larger one taken", "a host and the next but one taken"],
)
def test_the_engine_takes_a_subnet_without_a_route(taken: list[str], expected: str) -> None:
    assert free_subnet(networks(*taken)) == ipaddress.IPv4Network(expected)


def test_no_free_subnet_is_an_error_that_says_so() -> None:
    with pytest.raises(EngineError, match=r"172\.16\.0\.0/12 is in use"):
        free_subnet(networks("172.16.0.0/12"))


def test_an_engine_that_hangs_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexec sleep 60\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(engine, "ANSWER_SECONDS", 0.1)
    with pytest.raises(EngineError, match="hangs"):
        engine.answers()


def test_every_node_mounts_the_shared_folder() -> None:
    written = configuration(workers=2, shared=Path("/state/shared"), own_image=False)
    nodes: Any = written["nodes"]

    assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker"]
    assert all(node["extraMounts"] == [{"hostPath": "/state/shared", "containerPath": "/shared"}] for node in nodes)


def test_only_our_node_image_does_without_kinds_pod_network() -> None:
    def networking(own_image: bool) -> Any:
        text = yaml.safe_dump(configuration(workers=0, shared=Path("/s"), own_image=own_image))
        return yaml.safe_load(text)["networking"]

    assert networking(own_image=True).items() >= {"disableDefaultCNI": True, "kubeProxyMode": "none"}.items()
    assert networking(own_image=False).keys().isdisjoint({"disableDefaultCNI", "kubeProxyMode"})


def test_a_node_has_routes_to_the_pods_of_all_others() -> None:
    one, two, three = a_node("one", 1), a_node("two", 2), a_node("three", 3)
    script = setup_script(two, [one, two, three], pod_network=POD_NETWORK)

    routes = [line for line in script.splitlines() if line.startswith("ip route")]
    assert routes == [
        "ip route replace 10.128.1.0/24 via 172.16.0.1",
        "ip route replace 10.128.3.0/24 via 172.16.0.3",
    ]


def test_a_setup_script_is_valid_shell() -> None:
    script = setup_script(a_node("one", 1), [a_node("one", 1)], pod_network=POD_NETWORK)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_kube_proxy_knows_the_pods_network() -> None:
    written = yaml.safe_load((RUNC_WRAPPER.parent / "kube-proxy.yaml").read_text())
    assert written["clusterCIDR"] == POD_NETWORK


def test_pods_get_addresses_of_their_nodes_subnet() -> None:
    plugins = json.loads(cni_configuration(a_node("one", 1)))["plugins"]
    assert plugins[0]["ipam"]["ranges"] == [[{"subnet": "10.128.1.0/24"}]]


def test_nodes_are_read_as_kubectl_lists_them() -> None:
    addresses = [{"type": "Hostname", "address": "one"}, {"type": "InternalIP", "address": "172.16.0.1"}]
    item = {"metadata": {"name": "one"}, "spec": {"podCIDR": "10.128.1.0/24"}, "status": {"addresses": addresses}}
    assert nodes_of(json.dumps({"items": [item]})) == [a_node("one", 1)]


def test_requirements_keep_their_hashes() -> None:
    grpcio = "grpcio==2 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n    # via x\n"
    lock = f"grpc==1 \\\n    --hash=sha256:aa\n{grpcio}zipp==3\n"
    assert images.requirements(lock, ("grpcio",)) == grpcio


def test_an_image_names_its_layers_by_digest(tmp_path: Path) -> None:
    layer, image = tmp_path / "layer.tar", tmp_path / "image.tar"
    write_layer(
        layer, [Entry(path="usr/bin/tool", content=b"#!", mode=0o755), Entry(path="tool", link="/usr/bin/tool")]
    )
    write_image(image, "a/b:c", [layer], {"Entrypoint": ["/tool"]})

    with tarfile.open(image) as outer:
        manifest = json.loads(read(outer, "manifest.json"))[0]
        config = json.loads(read(outer, manifest["Config"]))
        content = io.BytesIO(read(outer, manifest["Layers"][0]))
    with tarfile.open(fileobj=content) as inner:
        modes = {member.name: oct(member.mode) for member in inner if not member.issym()}

    assert manifest["RepoTags"] == ["a/b:c"]
    assert len(config["rootfs"]["diff_ids"]) == 1
    assert config["config"] == {"Entrypoint": ["/tool"]}
    assert modes == {"usr": "0o755", "usr/bin": "0o755", "usr/bin/tool": "0o755"}


def read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def bounding_set() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)


@pytest.mark.skipif(bool(bounding_set() & SYS_RESOURCE), reason="this machine can grant CAP_SYS_RESOURCE")
@pytest.mark.parametrize("option", ["--bundle", "--bundle=", "--process"])
def test_the_runtime_asks_for_no_more_than_the_machine_can_grant(tmp_path: Path, option: str) -> None:
    process = {
        "capabilities": {"bounding": ["CAP_SYS_RESOURCE", "CAP_KILL"], "ambient": None},
        "rlimits": [{"type": "RLIMIT_NOFILE"}],
        "oomScoreAdj": -999,
        "args": ["true"],
    }
    path = tmp_path / ("process.json" if option == "--process" else "config.json")
    path.write_text(json.dumps(process if option == "--process" else {"process": process}))
    arguments = {
        "--bundle": ["create", "--bundle", str(tmp_path), "id"],
        "--bundle=": ["create", f"--bundle={tmp_path}", "id"],
        "--process": ["exec", "--process", str(path), "id"],
    }[option]

    subprocess.run([sys.executable, "-IS", RUNC_WRAPPER, "/bin/true", *arguments], check=True)

    written = json.loads(path.read_text())
    expected = {"capabilities": {"bounding": ["CAP_KILL"], "ambient": []}, "args": ["true"]}
    assert (written if option == "--process" else written["process"]) == expected
