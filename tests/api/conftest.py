from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.provider import Cluster, Provider, running
from tests.api.cluster import Api


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real control plane without nodes."""
    with running(Provider.LOCAL) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Api:
    """Its API server, which serves our CRDs."""
    api = Api(cluster.kubeconfig)
    api.install_crds()
    return api
