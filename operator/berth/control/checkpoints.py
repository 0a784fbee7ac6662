"""What an attempt is told of saving, resuming and reporting: environment, volumes and grace, by docs/checkpoints.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.control.ports import GROUP, VERSION, ApiError, Json, Trust
from berth.model.resources import duration_seconds
from berth.model.workloads import Placement, Ref

log = logging.getLogger(__name__)

CHECKPOINT_ANNOTATION = "berth.dev/checkpoint"  # of a TrainingJob: when somebody asked it to save and to go on
AUDIENCE = "berth.dev/progress"  # of the tokens that the endpoint takes
PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/trainingjobs/{{name}}/progress"
CONFIG_MAP, CA_KEY = "berth-progress-ca", "ca.crt"  # in each namespace in use
MOUNTED = "/var/run/berth"  # token and CA in the containers
TOKEN_SECONDS = 3600  # that a token is valid; the kubelet replaces it when four fifths are over
MOST_EARLIER = 32  # attempts that RESUME_FROM names: more that saved nothing in a row are a crash loop

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What an attempt is told that its spec does not say."""

    endpoint: str = ""  # the progress endpoint's address; "": it is told of none
    durable: int = 0  # number of the attempt that saved the last known durable checkpoint; 0: none is known
    mtbf_seconds: float = 0.0  # expected between failures of the whole gang; 0: unknown


NOTHING = Told()


@dataclass(frozen=True, slots=True)
class Telling:
    """Knows what to tell, and makes the authority known where it is needed."""

    endpoint: str
    trust: Trust
    mtbf: Callable[[Placement], float]

    async def prepare(self, ref: Ref, raw: Raw, placement: Placement) -> Told:
        """What a new attempt is told. That its namespace can't be written must not keep it from running."""
        try:
            await self.trust.publish(ref.namespace)
        except ApiError as error:
            log.warning("%s has no ConfigMap %s, so jobs can't report: %s", ref.namespace, CONFIG_MAP, error)
        saved = (raw.get("status") or {}).get("checkpoint") or {}
        return Told(self.endpoint, int(saved.get("attempt") or 0), self.mtbf(placement))


def tell(pod_spec: Json, ref: Ref, spec: Raw, number: int, told: Told) -> None:
    """Add to a pod's spec. What a container of the template sets or mounts itself is left as it is."""
    checkpoint = spec.get("checkpoint") or {}
    variables, mounts, volumes = _reporting(ref, told) if told.endpoint else ({}, [], [])
    if checkpoint:
        variables |= _saving(ref, checkpoint, number, told)
        pod_spec["terminationGracePeriodSeconds"] = int(checkpoint.get("graceSeconds", 120))
    if claim := claim_of(ref.name, checkpoint):
        volumes.append({"name": "berth-checkpoints", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": "berth-checkpoints", "mountPath": _root(checkpoint)})
    if volumes:
        pod_spec["volumes"] = [*(pod_spec.get("volumes") or []), *volumes]
    for container in pod_spec["containers"]:
        _tell_container(container, variables, mounts)


def claim_of(name: str, checkpoint: Raw) -> str:
    """The PersistentVolumeClaim that the job of that name saves to, its own or one made for it; "": of none we know.

    >>> claim_of("llm", {"claimTemplate": {"size": "1Ti"}})
    'llm-checkpoints'
    """
    own = f"{name}-checkpoints" if checkpoint.get("claimTemplate") else ""
    return str(checkpoint.get("claim") or own)


def folder_of(ref: Ref, checkpoint: Raw, number: int) -> str:
    """The folder of an attempt. One made later under the same name does not find it."""
    return f"{_root(checkpoint).rstrip('/')}/{ref.name}-{ref.uid[:8]}/{number}"


def earlier(number: int, durable: int) -> list[int]:
    """The attempts that one may resume from, newest first.

    >>> earlier(4, 0)
    [3, 2, 1]
    >>> earlier(1000, 7)[-2:]
    [968, 7]
    """
    oldest = max(1, number - MOST_EARLIER)
    return [*range(number - 1, oldest - 1, -1), *([durable] if 0 < durable < oldest else [])]


def _root(checkpoint: Raw) -> str:
    return str(checkpoint.get("path") or "/checkpoints")


def _saving(ref: Ref, checkpoint: Raw, number: int, told: Told) -> dict[str, str]:
    interval = str(checkpoint.get("interval") or "auto")
    variables = {
        "CHECKPOINT_DIR": folder_of(ref, checkpoint, number),
        "CHECKPOINT_INTERVAL": interval if interval == "auto" else str(duration_seconds(interval)),
        "CHECKPOINT_GRACE_SECONDS": str(checkpoint.get("graceSeconds", 120)),
    }
    if folders := [folder_of(ref, checkpoint, one) for one in earlier(number, told.durable)]:
        variables["RESUME_FROM"] = ":".join(folders)
    if told.mtbf_seconds:
        variables["CHECKPOINT_MTBF_SECONDS"] = str(round(told.mtbf_seconds))
    return variables


def _reporting(ref: Ref, told: Told) -> tuple[dict[str, str], list[Json], list[Json]]:
    """Variables, mounts and volumes for the progress endpoint.

    The ConfigMap is optional: a namespace that it could not be written to must not hold pods back.
    """
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    trusted = {"name": CONFIG_MAP, "optional": True, "items": [{"key": CA_KEY, "path": CA_KEY}]}
    sources = [{"serviceAccountToken": token}, {"configMap": trusted}]
    variables = {
        "KUBEFLOW_TRAINER_SERVER_URL": told.endpoint + PATH.format(namespace=ref.namespace, name=ref.name),
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": f"{MOUNTED}/{CA_KEY}",
        "KUBEFLOW_TRAINER_SERVER_TOKEN": f"{MOUNTED}/token",
    }
    mount = {"name": "berth-progress", "mountPath": MOUNTED, "readOnly": True}
    return variables, [mount], [{"name": "berth-progress", "projected": {"sources": sources}}]


def _tell_container(container: Json, variables: Mapping[str, str], mounts: list[Json]) -> None:
    own = list(container.get("env") or [])
    set_already = {variable["name"] for variable in own}
    added = [{"name": key, "value": value} for key, value in variables.items() if key not in set_already]
    if added:
        container["env"] = [*own, *added]  # behind the user's: the API server's messages count from the front
    used = {mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts") or []}
    new = [mount for mount in mounts if mount["mountPath"].rstrip("/") not in used]
    if new:
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), *new]
