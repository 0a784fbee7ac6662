"""Which pod holds which device: the kubelet's PodResources API, v1, over its socket.

The few fields that we need are read from the wire here, since a generated module fits only some releases of the
protobuf runtime (docs/decisions/0011). Layout: ListPodResourcesResponse.pod_resources = 1; PodResources.name = 1,
.namespace = 2, .containers = 3; ContainerResources.devices = 2, .dynamic_resources = 5; ContainerDevices.resource_name
= 1, .device_ids = 2; DynamicResource.claim_resources = 4; ClaimResource.driver_name = 2, .device_name = 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from berth.control.gpus import HoldersUnknown, Pod

METHOD = "/v1.PodResourcesLister/List"
ANSWER_SECONDS = 5.0
LONGEST_ANSWER = 16 * 2**20  # bytes: the kubelet's own limit for clients
RESOURCES = "nvidia.com/"
DRIVERS = ".nvidia.com"


@dataclass(frozen=True, slots=True)
class PodResources:
    """Implements `control.gpus.Holders`."""

    socket: Path

    async def __call__(self) -> Mapping[str, Pod]:
        """The pod behind each device id of an NVIDIA resource, or name of a device that a DRA driver gave it."""
        import grpc

        options = [("grpc.max_receive_message_length", LONGEST_ANSWER)]
        try:
            async with grpc.aio.insecure_channel(f"unix://{self.socket}", options=options) as channel:
                call = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
                answer = await call(b"", timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise HoldersUnknown(f"the kubelet does not answer on {self.socket}: {error.details()}") from error
        return holders(answer)


def holders(answer: bytes) -> dict[str, Pod]:
    """Who holds what, from an encoded ListPodResourcesResponse. Raises HoldersUnknown where it is not one."""
    found: dict[str, Pod] = {}
    try:
        for pod in _messages(answer, 1):
            who = Pod(_text(pod, 2), _text(pod, 1))
            for container in _messages(pod, 3):
                found.update(dict.fromkeys((*_plugged(container), *_claimed(container)), who))
    except (ValueError, IndexError) as error:
        raise HoldersUnknown(f"the kubelet's answer can't be read: {error}") from error
    return found


def _plugged(container: bytes) -> Iterator[str]:
    """Devices of NVIDIA's device plugin."""
    for devices in _messages(container, 2):
        if _text(devices, 1).startswith(RESOURCES):
            yield from (each.decode() for each in _messages(devices, 2))


def _claimed(container: bytes) -> Iterator[str]:
    """Devices of NVIDIA's DRA driver, whose names are no UUIDs: that boards are in use is all they tell."""
    for dynamic in _messages(container, 5):
        for claim in _messages(dynamic, 4):
            if _text(claim, 2).endswith(DRIVERS):
                yield f"{_text(claim, 2)}/{_text(claim, 4)}"


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """The values of one length-delimited field."""
    return (value for number, value in _fields(data) if number == wanted)


def _text(data: bytes, wanted: int) -> str:
    """A string field, the last where there are several, as protobuf has it."""
    return ([b"", *_messages(data, wanted)][-1]).decode()


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of every length-delimited field; others are passed over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("field 0")
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 2, 5):
            size, at = _varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
            if at + size > len(data):
                raise ValueError("it ends too early")
            if kind == 2:
                yield number, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
