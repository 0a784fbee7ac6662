"""docs/reference, made from the models: `python -m berth.api.reference docs/reference` brings it up to date."""

from __future__ import annotations

import ast
import inspect
import io
import json
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from berth.api.config import Config
from berth.api.crd import API_VERSION, CustomResource
from berth.api.generate import RESOURCES
from berth.api.schema import Schema, structural

MADE = "<!-- Made by python -m berth.api.reference: change the models instead. -->"
ENDLESS = 10**9  # a bound beyond that tells a reader nothing
CONFIGURATION = """\
The operator reads one YAML file, which the chart makes of its value `config`. Every field may be left out; unknown ones
are refused. An environment variable wins over the file: its name is `BERTH_`, then the field in capitals, with an
underscore between words and two between parts, such as `BERTH_LEADER_ELECTION__LEASE_DURATION_SECONDS`."""


def pages() -> dict[str, str]:
    """File names and their Markdown."""
    return {
        **{f"{resource.kind.lower()}.md": _of_resource(resource) for resource in RESOURCES},
        "configuration.md": _page("Configuration", CONFIGURATION, *_sections("", configuration())),
    }


def configuration() -> Schema:
    """The configuration's schema under the names that its file has, the comments beside its fields as descriptions."""
    return _commented(Config)


def _of_resource(resource: CustomResource) -> str:
    schema = resource.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    scope = "Belongs to no namespace" if resource.cluster_scoped else "Belongs to a namespace"
    about = (
        f"{schema['description']}\n\n`apiVersion: {API_VERSION}`, `kind: {resource.kind}`; for kubectl "
        f"`{resource.plural}` or `{resource.short_name}`. {scope}."
    )
    if resource.longest_name:
        about += f" {_plain(resource.name_remedy).replace('metadata.name', '`metadata.name`')}."
    parts = (part for name in ("spec", "status") for part in _sections(name, schema["properties"].get(name, {})))
    return _page(resource.kind, about, *parts)


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", MADE, *parts]) + "\n"


def _sections(path: str, schema: Schema) -> Iterator[str]:
    """An object with its fields, then the objects in it. What keeps unknown fields is Kubernetes' own: just named."""
    fields = schema.get("properties", {})
    if not fields:
        return
    if path:
        yield f"{'##' if '.' not in path else '###'} {path}"
        if about := schema.get("description"):
            yield _plain(about)
    required = schema.get("required", ())
    rows = [_row(name, field, name in required) for name, field in fields.items()]
    yield "\n".join(["| field | type | default | |", "|---|---|---|---|", *rows])
    if said := _remedies(schema):
        yield "\n".join(["Refused otherwise:", "", *(f"- {text}" for text in said)])
    for name, field in fields.items():
        inner = f"{path}.{name}".lstrip(".")
        if not field.get("x-kubernetes-preserve-unknown-fields"):
            yield from _sections(inner, field)
            yield from _sections(f"{inner}[]", field.get("items", {}))


def _row(name: str, field: Schema, required: bool) -> str:
    default = "required" if required else _default(field.get("default"))
    must = [] if "properties" in field else [text for text in _remedies(field) if text.startswith("must")]
    said = " ".join(map(_sentence, filter(None, [field.get("description"), *must])))
    return f"| `{name}` | {_type(field)} | {default} | {said} |"


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return "map of strings"
    if field.get("x-kubernetes-int-or-string"):
        return "number or text"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "object"}
    word = "time" if field.get("format") == "date-time" else words.get(field.get("type", ""), "number")
    return f"{word}{_bounds(field)}"


def _bounds(field: Schema) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
    return "".join(f", {sign} {field[key]:,.12g}" for key, sign in signs if abs(field.get(key, ENDLESS)) < ENDLESS)


def _default(value: Any) -> str:
    """What stands in the table for a default; parts that are objects have a table of their own."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(str(item["name"]) for item in value)
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if value and isinstance(value, str) else f"`{json.dumps(value)}`"


def _remedies(schema: Schema) -> list[str]:
    """What the API server says of what it refuses, each once, after the fields that it says it of."""
    fields: dict[str, list[str]] = {}
    for one in schema.get("x-kubernetes-validations", ()):
        named = fields.setdefault(one["message"], [])
        if "fieldPath" in one and not one["message"].startswith(one["fieldPath"][1:]):
            named.append(f"`{one['fieldPath'][1:]}`")
    return [
        " ".join(filter(None, [", ".join(dict.fromkeys(names)), _plain(message)])) for message, names in fields.items()
    ]


def _sentence(text: str) -> str:
    """Text that begins with a capital and ends with a full stop, for a cell of a table.

    >>> _sentence("a | b")
    'A \\\\| b.'
    """
    plain = _plain(text).replace("|", "\\|")
    return f"{plain[:1].upper()}{plain[1:].removesuffix('.')}."


def _plain(text: str) -> str:
    """Text on one line, in which nothing is taken for HTML.

    >>> _plain("<name>-<attempt>")
    '&lt;name>-&lt;attempt>'
    """
    return " ".join(text.split()).replace("<", "&lt;")


def _commented(model: type[BaseModel]) -> Schema:
    """A model's schema with camelCase names, and comments as descriptions, also of the models in it."""
    schema, comments = structural(model), _comments(model)
    fields = {}
    for name, field in model.model_fields.items():
        found = schema["properties"][name]
        if section := _section(field.annotation):
            inner = _commented(section)
            found = {**found, "items": inner} if found["type"] == "array" else {**found, **inner}
        fields[to_camel(name)] = {**found, "description": comments.get(name) or found.get("description", "")}
    return {**schema, "properties": fields}


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, or holds a list of."""
    inner = (annotation, *get_args(annotation))
    return next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _comments(model: type[BaseModel]) -> Mapping[str, str]:
    """The comments at the ends of a model's fields, by field."""
    source = inspect.getsource(model)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    return {
        one.target.id: said[one.end_lineno]
        for one in body.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.end_lineno in said
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in pages().items():
        (folder / file).write_text(text)
