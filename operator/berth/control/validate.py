"""Asks the API server, by dry run, whether it would take what a workload becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from berth.control import builders
from berth.control.ports import DEPLOYMENTS, JOBS, PODS, Api, Clock, Json, Refused, Resource
from berth.model.workloads import Device, Kind, Placement, Ref

REMEMBER_SECONDS = 60.0  # a template's answer holds this long for others alike: admission rules change seldom
LAUNCH_VARIABLES = 9  # that the builder puts before the user's own
STAND_IN = Device(model="any", resource="nvidia.com/gpu", count=1)  # the device is not known yet, nor does it matter
PASSING = ("exceeded quota", "status unknown for quota", "being terminated")  # refusals that pass by themselves


@dataclass
class Validator:
    """Dry runs of a workload's Job or Deployment and of one Pod of its template, remembered by template.

    Both are needed: a Job's dry run takes a missing service account or a violation of pod security that the pods'
    own creation refuses later.
    """

    api: Api
    clock: Clock
    _known: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def problem(self, ref: Ref, spec: Mapping[str, Any]) -> str:
        """The field and what the API server says of it; "" when it would take the objects."""
        now = self.clock()
        key = json.dumps(
            [ref.namespace, ref.kind, spec["template"], spec.get("workers") == 1, spec.get("checkpoint")],
            sort_keys=True,
        )
        known = self._known.get(key)
        if known is not None and now - known[0] < REMEMBER_SECONDS:
            return known[1]
        problem = await self._ask(ref, spec)
        self._known = {k: v for k, v in self._known.items() if now - v[0] < REMEMBER_SECONDS}
        self._known[key] = (now, problem)
        return problem

    async def _ask(self, ref: Ref, spec: Mapping[str, Any]) -> str:
        if ref.kind is Kind.TRAINING_JOB:
            resource, body = JOBS, builders.job(ref, spec, 1, Placement(STAND_IN, ("",) * int(spec["workers"])))
        else:
            resource, body = DEPLOYMENTS, builders.deployment(ref, spec, 1, STAND_IN)
        template = body["spec"]["template"]
        body["metadata"]["name"] = f"berth-dry-run-{ref.uid[:8]}"
        pod = builders.pod(ref.namespace, template)
        for what, sent in ((resource, body), (PODS, pod)):
            problem = await self._dry_run(what, ref, sent)
            if problem:
                return problem
        return ""

    async def _dry_run(self, resource: Resource, ref: Ref, body: Json) -> str:
        try:
            await self.api.create(resource, ref.namespace, body, dry_run=True)
        except Refused as error:
            if any(word in str(error) for word in PASSING):
                return ""
            return _in_template(str(error), resource, added=LAUNCH_VARIABLES if ref.kind is Kind.TRAINING_JOB else 0)
        return ""


def _in_template(message: str, resource: Resource, added: int) -> str:
    """The API server's message without the name of our stand-in, its paths as the user wrote them.

    `added` variables stand before the user's own in each container (not in init containers).
    """
    detail = re.sub(r"^.*? is invalid: |^.*?strict decoding error: ", "", message)
    if "looking up service account" in detail:
        return f"spec.template.spec.serviceAccountName: {detail}"
    if resource is PODS:
        detail = re.sub(r"(^|[\s\[\"])(spec|metadata)\.", r"\1spec.template.\2.", detail)
    detail = re.sub(
        r"(\.containers\[\d+\]\.env)\[(\d+)\]", lambda found: f"{found[1]}[{int(found[2]) - added}]", detail
    )
    return detail if detail.startswith("spec.template") else f"spec.template: {detail}"
