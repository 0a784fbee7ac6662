"""One kind cluster for all tests of this folder: two workers with our mig-manager, and one with the real node agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import images
from e2e.cluster.engine import lease
from e2e.cluster.kind import KindCluster
from e2e.cluster.provider import Provider, running
from e2e.demo import install


@pytest.fixture(scope="package")
def image() -> str:
    with lease() as engine:
        return images.build(engine, "fakegpu")["fakegpu"]


@pytest.fixture(scope="package")
def cluster(image: str) -> Iterator[KindCluster]:
    with running(Provider.KIND, workers=3) as cluster:
        assert isinstance(cluster, KindCluster)
        cluster.load_image(image)
        install.install_chart(cluster.kubeconfig, {"replicaCount": 0})
        yield cluster
