"""Which kinds of others' objects the picture mirrors, and how each is decoded."""

from __future__ import annotations

from typing import Any

from berth.adapters.kube import KubeApi
from berth.adapters.records import Claim, Decoder, Deployment, GPUNode, Job, Node, Pod, PriorityClass, Volume
from berth.adapters.reflector import Reflector
from berth.control.picture import Picture, Store
from berth.control.ports import (
    DEPLOYMENTS,
    GPU_NODES,
    JOBS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    VOLUME_CLAIMS,
    VOLUMES,
    Clock,
    Resource,
)
from berth.control.records import UID_LABEL

LABELS = {JOBS: UID_LABEL, DEPLOYMENTS: UID_LABEL}  # what others made is not looked at


def mirrored(picture: Picture) -> dict[Resource, tuple[type[Any], Store[Any]]]:
    """The fields that are read of each kind, and the part of the picture that holds it."""
    return {
        NODES: (Node, picture.nodes),
        GPU_NODES: (GPUNode, picture.gpu_nodes),
        PODS: (Pod, picture.pods),
        JOBS: (Job, picture.jobs),
        DEPLOYMENTS: (Deployment, picture.deployments),
        PRIORITY_CLASSES: (PriorityClass, picture.priorities),
        VOLUME_CLAIMS: (Claim, picture.claims),
        VOLUMES: (Volume, picture.volumes),
    }


def mirrors(
    api: KubeApi, picture: Picture, clock: Clock, decoder: type[Decoder[Any]] = Decoder
) -> list[Reflector[Any]]:
    """A reflector for each kind, which fills its part of the picture."""
    return [
        Reflector(api, kind, decoder(struct), store, clock, LABELS.get(kind, ""))
        for kind, (struct, store) in mirrored(picture).items()
    ]
