"""What our custom resources' models have in common, and their structural schemas as the API server wants them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import GroupedMetadata
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Schema = dict[str, Any]


class Fields(BaseModel):
    """Fields that a user writes: camelCase in manifests, unknown ones refused, nothing coerced."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
    )


class Reported(Fields):
    """Fields that Berth writes: those of a later version are passed over."""

    model_config = ConfigDict(extra="ignore")


class Embedded(Fields):
    """Part of a Kubernetes object that we pass on: fields we don't name are kept as they are."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})


Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def rules(*validations: Schema) -> Schema:
    """Schema keywords that hold CEL validations."""
    return {"x-kubernetes-validations": list(validations)}


def rule(expression: str, message: str, field_path: str = "") -> Schema:
    """One CEL validation. `field_path` names the field at fault, from the object that the rule sits on."""
    path = {"fieldPath": field_path} if field_path else {}
    return {"rule": expression, "message": message, **path}


def list_map(*keys: str) -> Schema:
    """Schema keywords of a list whose items are merged, and unique, by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


@dataclass(frozen=True)
class Text(GroupedMetadata):
    """For Annotated[str, ...]: at most `longest` characters, which all `patterns` match; `help` says what may be."""

    patterns: tuple[str, ...]
    help: str
    longest: int

    def __iter__(self) -> Iterator[Any]:
        """The constraints: checked here and, as CEL, by the API server."""
        matches = " && ".join("self.matches('{}')".format(p.replace("\\", "\\\\")) for p in self.patterns)
        yield AfterValidator(self._check)
        yield Field(max_length=self.longest, json_schema_extra=rules(rule(matches, self.help)))

    def _check(self, value: str) -> str:
        if not all(re.search(pattern, value) for pattern in self.patterns):
            raise ValueError(self.help)
        return value


def structural(model: type[BaseModel]) -> Schema:
    """The model's structural schema: no references, unions with null, titles or other words that CRDs refuse."""
    raw = model.model_json_schema(by_alias=True)
    return _structural(raw, raw.get("$defs", {}))


_DROPPED = ("$defs", "$ref", "anyOf", "const", "title", "prefixItems", "uniqueItems")


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The node with what it refers to written out. A field's own words win over those of the type it refers to."""
    schema: Schema = {}
    if "$ref" in node:
        schema |= _structural(definitions[node["$ref"].rpartition("/")[2]], definitions)
    for option in node.get("anyOf", ()):
        if option != {"type": "null"}:
            schema |= _structural(option, definitions)
    if "const" in node:
        schema["enum"] = [node["const"]]
    schema |= {key: value for key, value in node.items() if key not in _DROPPED}
    return _tidied(schema, definitions)


def _tidied(schema: Schema, definitions: Mapping[str, Any]) -> Schema:
    if "description" in schema:
        schema = {"description": " ".join(schema["description"].split()), **schema}
    if "properties" in schema:
        schema["properties"] = {k: _structural(v, definitions) for k, v in schema["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema[inner] = _structural(schema[inner], definitions)
        elif inner == "additionalProperties":
            schema.pop(inner, None)
    if schema.get("default", ...) is None:
        del schema["default"]
    return schema
