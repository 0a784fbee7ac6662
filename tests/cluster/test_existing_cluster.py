"""The provider `existing`, tried on a cluster of the local one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.cluster.errors import ClusterError
from e2e.cluster.existing import ExistingCluster
from e2e.cluster.nodes import create_fake_nodes, list_nodes
from e2e.cluster.provider import Cluster, Provider, running

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def somebodys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with running(Provider.LOCAL) as cluster:
            yield cluster


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_it_is_taken_from_the_environment_and_left_running(somebodys: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(somebodys.kubeconfig))
    existing = ExistingCluster("borrowed")

    existing.up()
    assert existing.status().healthy
    existing.down()

    assert not existing.folder.exists()
    assert somebodys.status().healthy


def test_fake_nodes_are_added_and_only_they_are_removed_again(somebodys: Cluster) -> None:
    create_fake_nodes(somebodys.kubeconfig, ["theirs"])
    existing = ExistingCluster("borrowed", source=somebodys.kubeconfig, fake_nodes=2)

    existing.up()
    ready = {node.name: node.ready for node in list_nodes(somebodys.kubeconfig) or []}
    assert ready.keys() == {"fake-0", "fake-1", "theirs"}
    assert ready["fake-0"]
    assert ready["fake-1"]
    existing.down()

    assert [node.name for node in list_nodes(somebodys.kubeconfig) or []] == ["theirs"]


def test_the_context_asked_for_becomes_the_current_one(somebodys: Cluster, tmp_path: Path) -> None:
    content = yaml.safe_load(somebodys.kubeconfig.read_text())
    context = content["current-context"]
    content["current-context"] = ""
    source = tmp_path / "many-contexts"
    source.write_text(yaml.safe_dump(content))
    existing = ExistingCluster("borrowed", source=source, context=context)

    existing.up()

    assert existing.status().healthy
    existing.down()


def test_a_cluster_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    cluster = {"name": "gone", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "gone", "context": {"cluster": "gone", "user": "nobody"}}
    source = tmp_path / "gone"
    users = [{"name": "nobody", "user": {}}]
    content = {"current-context": "gone", "clusters": [cluster], "contexts": [context], "users": users}
    source.write_text(yaml.safe_dump(content))

    with pytest.raises(ClusterError, match="does not answer"):
        ExistingCluster("gone", source=source).up()
