"""How fast a big cluster's pods are read: once at the start, and after each relist."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest

from berth.adapters.records import Decoder, Pod
from berth.control.records import PodRecord

PODS = 10_000
LEAST_PER_SECOND = 2_000  # about 40,000 on an idle core; a client of full models makes 1,000


def a_pod(number: int) -> dict[str, Any]:
    """A pod about as big as real ones are."""
    env = [{"name": f"VARIABLE_{i}", "value": "x" * 20} for i in range(20)]
    resources = {"requests": {"cpu": f"{number % 7 + 1}", "memory": "8Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    container = {"name": "main", "image": "registry/train:1", "env": env, "resources": resources}
    fields: dict[str, Any] = {f"f:field-{i}": {} for i in range(30)}
    return {
        "metadata": {
            "name": f"pod-{number}",
            "namespace": "team",
            "uid": f"uid-{number}",
            "resourceVersion": str(number + 1),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {f"label-{i}": "value" for i in range(6)},
            "managedFields": [{"manager": "kubelet", "fieldsV1": fields}],
        },
        "spec": {"containers": [container], "nodeName": f"node-{number % 500}"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def test_reads_ten_thousand_pods_in_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    items = [a_pod(number) for number in range(PODS)]
    content = json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}).encode()
    decoder: Decoder[PodRecord] = Decoder(Pod)
    start = process_time()
    page, _, _ = decoder.page(content)
    records = [decoder.one(item) for item in page]
    seconds = process_time() - start
    with capsys.disabled():
        print(f"\n{len(content) / 1e6:.0f} MB, {PODS / seconds:,.0f} pods/s", end=" ")
    assert len(records) == PODS
    assert records[-1].requests == {"cpu": 4000, "memory": 2**33, "nvidia.com/gpu": 1}
    assert PODS / seconds > LEAST_PER_SECOND
