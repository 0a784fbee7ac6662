"""What the tests against a real API server share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from e2e.fakegpu.kube import ApiError, Kube

CRD = Path(__file__).parents[2] / "crds" / "berth.dev_gpunodes.yaml"


async def install_crd(kube: Kube) -> None:
    """Make GPUNode known."""
    await create(kube, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(CRD.read_text()))


async def create(kube: Kube, path: str, body: Any) -> None:
    try:
        await kube.request("POST", path, body)
    except ApiError as error:
        if error.status != 409:
            raise


async def until(kube: Kube, path: str, holds: Callable[[Any], bool], seconds: int = 30) -> Any:
    """The object, once it holds; AssertionError with its last state after that time."""
    seen: Any = None
    for _ in range(seconds * 10):
        try:
            seen = await kube.request("GET", path)
            if holds(seen):
                return seen
        except ApiError as error:
            if error.status != 404:
                raise
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} never came to it: {seen}")


def boards(gpunode: Any) -> list[Any]:
    """The boards of a GPUNode; none between its creation and its first status."""
    return list(gpunode.get("status", {}).get("boards", ()))


def holders(gpunode: Any) -> dict[str, str]:
    """Device to pod."""
    devices = [d for board in boards(gpunode) for d in (board, *board["instances"])]
    return {device["uuid"]: device["pod"]["name"] for device in devices if "pod" in device}


def starts(gpunode: Any) -> list[int]:
    """Where the instances of board 0 begin."""
    return [instance["start"] for board in boards(gpunode)[:1] for instance in board["instances"]]
