"""CustomResourceDefinitions, made from models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from berth.api.schema import Schema, rule, rules, structural

GROUP = "berth.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; `wide` ones show with -o wide."""

    name: str
    path: str
    about: str
    type: str = "string"
    wide: bool = False

    def definition(self) -> Schema:
        """As a CustomResourceDefinition has it."""
        shown = {"priority": 1} if self.wide else {}
        return {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.about, **shown}


@dataclass(frozen=True, slots=True)
class CustomResource:
    """One of our kinds."""

    kind: str
    plural: str
    short_name: str
    about: str
    spec: type[BaseModel] | None
    status: type[BaseModel]
    columns: tuple[Column, ...]
    cluster_scoped: bool = False
    spec_required: bool = True
    longest_name: int | None = None  # None: any name that Kubernetes allows
    name_remedy: str = ""  # why names are limited so
    scale: Mapping[str, str] | None = None

    def definition(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{self.plural}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "names": self._names(),
                "scope": "Cluster" if self.cluster_scoped else "Namespaced",
                "versions": [self._version()],
            },
        }

    def _names(self) -> Schema:
        return {
            "kind": self.kind,
            "listKind": f"{self.kind}List",
            "plural": self.plural,
            "singular": self.kind.lower(),
            "shortNames": [self.short_name],
            "categories": ["berth"],
        }

    def _version(self) -> Schema:
        age = Column("Age", ".metadata.creationTimestamp", "Time since it was made", type="date")
        narrow = [c for c in self.columns if not c.wide]
        wide = [c for c in self.columns if c.wide]
        return {
            "name": VERSION,
            "served": True,
            "storage": True,
            "additionalPrinterColumns": [column.definition() for column in (*narrow, age, *wide)],
            "subresources": {"status": {}, **({"scale": dict(self.scale)} if self.scale else {})},
            "schema": {"openAPIV3Schema": self._schema()},
        }

    def _schema(self) -> Schema:
        spec = {"spec": structural(self.spec)} if self.spec else {}
        return {
            "type": "object",
            "description": self.about,
            "properties": {
                "apiVersion": {"type": "string", "description": f"Always {API_VERSION}."},
                "kind": {"type": "string", "description": f"Always {self.kind}."},
                "metadata": {"type": "object"},
                **spec,
                "status": structural(self.status),
            },
            **({"required": ["spec"]} if self.spec and self.spec_required else {}),
            **self._name_rule(),
        }

    def _name_rule(self) -> Schema:
        if self.longest_name is None:
            return {}
        label = f"^[a-z]([-a-z0-9]{{0,{self.longest_name - 2}}}[a-z0-9])?$"
        return rules(rule(f"self.metadata.name.matches('{label}')", self.name_remedy))
