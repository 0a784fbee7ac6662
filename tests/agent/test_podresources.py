"""Who holds what, read from the kubelet's answer and over its socket."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from berth.adapters.podresources import PodResources, holders
from berth.control.gpus import HoldersUnknown, Pod
from e2e.fakegpu.node import Holder
from e2e.fakegpu.proto import podresources_pb2 as api
from tests.fakegpu.kubelet import FakeKubelet

names = st.text(min_size=1, max_size=12)
resources = st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "intel.com/sriov", "cpu"])
Pods = dict[tuple[str, str], list[tuple[str, list[str]]]]
pods = st.dictionaries(
    st.tuples(names, names), st.lists(st.tuples(resources, st.lists(names, max_size=4)), max_size=4), max_size=5
)


def encoded(pods: Pods) -> bytes:
    """The kubelet's answer, by the kubelet's own schema."""
    listed = [
        api.PodResources(
            namespace=namespace,
            name=name,
            containers=[
                api.ContainerResources(
                    name="main",
                    devices=[api.ContainerDevices(resource_name=r, device_ids=ids) for r, ids in devices],
                )
            ],
        )
        for (namespace, name), devices in pods.items()
    ]
    return api.ListPodResourcesResponse(pod_resources=listed).SerializeToString()


@given(pods)
def test_reads_what_generated_code_writes(pods: Pods) -> None:
    expected = {
        device: Pod(*pod)
        for pod, devices in pods.items()
        for resource, ids in devices
        if resource.startswith("nvidia.com/")
        for device in ids
    }
    assert holders(encoded(pods)) == expected


def by_protobuf(answer: bytes) -> dict[str, Pod] | None:
    """What generated code makes of an answer; None where it refuses it."""
    try:
        parsed = api.ListPodResourcesResponse.FromString(answer)
    except DecodeError:
        return None
    return {
        device: Pod(pod.namespace, pod.name)
        for pod in parsed.pod_resources
        for container in pod.containers
        for devices in container.devices
        if devices.resource_name.startswith("nvidia.com/")
        for device in devices.device_ids
    }


@given(pods.filter(bool), st.data())
def test_a_damaged_answer_is_read_as_protobuf_reads_it_or_not_at_all(pods: Pods, data: st.DataObject) -> None:
    answer = bytearray(encoded(pods))
    for at in data.draw(st.lists(st.integers(0, len(answer) - 1), min_size=1, max_size=3)):
        answer[at] = data.draw(st.integers(0, 255))
    expected = by_protobuf(bytes(answer))
    try:
        found = holders(bytes(answer))
    except HoldersUnknown:
        return
    assert expected is None or found == expected


def test_zeros_are_no_answer() -> None:
    with pytest.raises(HoldersUnknown, match="field 0"):
        holders(bytes(4))


@given(pods.filter(bool), st.data())
def test_an_answer_that_was_cut_short_is_no_answer_or_lacks_whole_pods(pods: Pods, data: st.DataObject) -> None:
    answer = encoded(pods)
    cut = answer[: data.draw(st.integers(0, len(answer) - 1))]
    try:
        found = holders(cut)
    except HoldersUnknown:
        return
    assert found == by_protobuf(cut)


def _field(number: int, *parts: bytes) -> bytes:
    """A length-delimited field."""
    body = b"".join(parts)
    return bytes([number << 3 | 2, len(body)]) + body


def test_a_claim_of_a_dra_driver_counts_as_a_device_in_use() -> None:
    claim = _field(4, _field(2, b"gpu.nvidia.com"), _field(3, b"node-1"), _field(4, b"gpu-0"))
    other = _field(4, _field(2, b"net.example.com"), _field(4, b"nic-0"))
    cpus = bytes([3 << 3 | 2, 2, 1, 2])
    container = _field(3, _field(1, b"main"), cpus, _field(5, _field(2, b"claim"), claim, other))
    answer = _field(1, _field(1, b"llm-0"), _field(2, b"team"), container)
    assert holders(answer) == {"gpu.nvidia.com/gpu-0": Pod("team", "llm-0")}


async def test_asks_a_kubelet_over_its_socket(tmp_path: Path) -> None:
    kubelet = FakeKubelet(tmp_path)
    await kubelet.start()
    kubelet.held[Holder("team", "llm-0")] = {"nvidia.com/gpu": ["GPU-1", "GPU-2"]}
    try:
        found = await PodResources(tmp_path / "pod-resources" / "kubelet.sock")()
    finally:
        await kubelet.stop()
    assert found == dict.fromkeys(["GPU-1", "GPU-2"], Pod("team", "llm-0"))


async def test_a_kubelet_that_is_not_there_leaves_it_unknown(tmp_path: Path) -> None:
    with pytest.raises(HoldersUnknown, match="the kubelet does not answer"):
        await PodResources(tmp_path / "kubelet.sock")()
