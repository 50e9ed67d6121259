"""JSON schemas whose lists stand in any order, as lists made from sets do."""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any, Final

from asynccache.keys.canonical import canonical_json
from asynccache.keys.normalizer import normalizer

_SCHEMAS: Final = frozenset({
    "guided_json", "input_schema", "parameters", "parametersJsonSchema", "parameters_json_schema",
    "responseJsonSchema", "responseSchema", "response_json_schema", "response_schema", "schema",
})  # fmt: skip
"""Members of a body that hold a schema, of a tool or of the answer."""
_SETS: Final = frozenset({"enum", "required", "type"})
"""Lists of a schema whose order says nothing."""
_ANY_ORDER: Final = frozenset({"allOf", "anyOf", "oneOf"})
"""Lists of schemas whose order says nothing."""
_NAMED: Final = frozenset({
    "$defs", "definitions", "dependentRequired", "dependentSchemas", "patternProperties",
    "properties",
})  # fmt: skip
"""What holds a schema, or a set, under each name."""
_DATA: Final = frozenset({"const", "default", "examples"})
"""What holds data, and no schemas."""


@normalizer(version=1, name="schema_order")
def schema_order(body: dict[str, Any]) -> dict[str, Any]:
    """Sort those lists of JSON schemas whose order says nothing: ``required``, ``enum`` and so on.

    Schemas are those of tools and of structured answers. Lists that are made from a set stand in
    another order in each process.
    """
    found: dict[str, Any] = _members(body)
    return found


def _members(node: Any) -> Any:
    """Return a part of a body, with each schema in it sorted."""
    if isinstance(node, dict):
        return {
            name: _sorted(value) if name in _SCHEMAS else _members(value)
            for name, value in node.items()
        }
    return [_members(item) for item in node] if isinstance(node, list) else node


def _sorted(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_sorted(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _keyword(name, value) for name, value in schema.items()}


def _keyword(name: str, value: Any) -> Any:
    if name in _DATA:
        return value
    if name in _NAMED and isinstance(value, dict):
        return {
            each: sorted(inner, key=canonical_json)
            if name == "dependentRequired" and isinstance(inner, list)
            else _sorted(inner)
            for each, inner in value.items()
        }
    if isinstance(value, list) and name in _SETS:
        return sorted(value, key=canonical_json)
    if isinstance(value, list) and name in _ANY_ORDER:
        return sorted(map(_sorted, value), key=canonical_json)
    return _sorted(value)
