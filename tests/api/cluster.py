"""A real API server with our CRDs, for tests that ask it what it thinks of an object."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from berth.api.generate import RESOURCES
from e2e.cluster.nodes import connect

CRDS = Path(__file__).parents[2] / "crds"
PLURALS = {resource.kind: resource for resource in RESOURCES}
ESTABLISHED_SECONDS = 30


class Refusal(Exception):
    """The API server said no; the message is its own."""


class Api:
    """Creates and changes objects as kubectl does: unknown fields are refused."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = connect(kubeconfig)

    def call(self, method: str, path: str, body: Any = None, *, accept: str = "application/json") -> dict[str, Any]:
        """One request, with the answer's JSON. Raises Refusal."""
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = self._client.param_serialize(
            method,
            path,
            header_params={"Content-Type": content, "Accept": accept},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request)
        result: dict[str, Any] = json.loads(answer.read())  # type: ignore[no-untyped-call]
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise Refusal(result["message"])
        return result

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object of ours."""
        options = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.call("POST", collection(manifest["kind"]) + options, manifest)

    def patch(self, kind: str, name: str, body: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        """Merge into an object of ours."""
        path = f"{collection(kind)}/{name}" + (f"/{subresource}" if subresource else "")
        return self.call("PATCH", path + "?fieldValidation=Strict", body)

    def get(self, kind: str, name: str, subresource: str = "") -> dict[str, Any]:
        """An object of ours."""
        return self.call("GET", f"{collection(kind)}/{name}" + (f"/{subresource}" if subresource else ""))

    def install_crds(self) -> dict[str, list[dict[str, Any]]]:
        """Install what `crds/` holds, and return each one's conditions once all are served."""
        for file in sorted(CRDS.glob("*.yaml")):
            self.call("POST", DEFINITIONS, yaml.safe_load(file.read_text()))
        deadline = time.monotonic() + ESTABLISHED_SECONDS
        while not all(self._serves(kind) for kind in PLURALS):
            if time.monotonic() > deadline:
                raise TimeoutError(f"CRDs not served after {ESTABLISHED_SECONDS} s")
            time.sleep(0.1)
        items = self.call("GET", DEFINITIONS)["items"]
        return {item["spec"]["names"]["kind"]: item["status"]["conditions"] for item in items}

    def _serves(self, kind: str) -> bool:
        try:
            self.call("GET", collection(kind))
        except (Refusal, json.JSONDecodeError):  # a path that is not served yet answers in plain text
            return False
        return True


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def collection(kind: str) -> str:
    """The path of a kind's objects, in the namespace `default` where it has namespaces."""
    resource = PLURALS[kind]
    namespace = "" if resource.cluster_scoped else "namespaces/default/"
    return f"/apis/berth.dev/v1alpha1/{namespace}{resource.plural}"
