"""The smallest JSON that a schema accepts; what the fake engine answers with.

Covers what callers' schemas are made of: types, enum, const, required properties,
lengths and bounds, local references, anyOf, oneOf and allOf. Whatever comes out is
validated, so that a schema beyond that is refused and never answered wrongly.
"""

from collections.abc import Mapping
from typing import cast

from jsonschema import Draft202012Validator

from atrium_common.errors import InvalidArgument

_DEEPEST = 32
_LONGEST = 1000


def minimal_instance(schema: Mapping[str, object], *, field: str) -> object:
    """Makes a small instance of a JSON Schema, the same one every time.

    Args:
        schema: A valid schema of draft 2020-12.
        field: Path of the schema in its request, for the error.

    Raises:
        InvalidArgument: No instance was found for this schema.
    """
    try:
        instance = _build(schema, schema, 0)
        valid = Draft202012Validator(schema).is_valid(instance)
    except (RecursionError, LookupError, TypeError, ValueError):
        valid = False
    if not valid:
        raise InvalidArgument(f"{field}: the fake engine can't satisfy this schema.", field=field)
    return instance


def _build(schema: object, root: Mapping[str, object], depth: int) -> object:
    if depth > _DEEPEST:
        raise RecursionError
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return _build(_referenced(schema["$ref"], root), root, depth + 1)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _build({**schema[choice][0]}, root, depth + 1)
    if "allOf" in schema:
        return _build(_merged(schema), root, depth + 1)
    return _of_type(schema, root, depth)


def _referenced(reference: str, root: Mapping[str, object]) -> object:
    if not reference.startswith("#"):
        raise LookupError(reference)
    found: object = root
    for part in reference[1:].strip("/").split("/"):
        if part:
            found = cast(Mapping[str, object], found)[part.replace("~1", "/").replace("~0", "~")]
    return found


def _merged(schema: Mapping[str, object]) -> dict[str, object]:
    merged: dict[str, object] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in cast("list[dict[str, object]]", schema["allOf"]):
        for key, value in part.items():
            present = merged.get(key)
            if isinstance(present, dict) and isinstance(value, dict):
                merged[key] = {**present, **value}
            elif isinstance(present, list) and isinstance(value, list):
                merged[key] = [*present, *value]
            else:
                merged[key] = value
    return merged


def _of_type(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> object:
    kind = schema.get("type", "object" if "properties" in schema else "null")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = cast("dict[str, object]", schema.get("properties", {}))
        required = cast("list[str]", schema.get("required", []))
        return {name: _build(properties.get(name, {}), root, depth + 1) for name in required}
    if kind == "array":
        least = cast(int, schema.get("minItems", 0))
        return [
            _build(schema.get("items", {}), root, depth + 1) for _ in range(min(least, _LONGEST))
        ]
    if kind == "string":
        return "a" * min(cast(int, schema.get("minLength", 0)), _LONGEST)
    if kind in ("integer", "number"):
        return _number(schema)
    return False if kind == "boolean" else None


def _number(schema: Mapping[str, object]) -> int | float:
    step = cast(float, schema.get("multipleOf", 1))
    low = cast("float | None", schema.get("minimum"))
    if "exclusiveMinimum" in schema:
        low = cast(float, schema["exclusiveMinimum"]) + step
    high = cast("float | None", schema.get("maximum"))
    if "exclusiveMaximum" in schema:
        high = cast(float, schema["exclusiveMaximum"]) - step
    if low is not None and low > 0:
        return -(-low // step) * step
    if high is not None and high < 0:
        return high // step * step
    return 0
