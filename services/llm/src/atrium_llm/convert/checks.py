"""The checks that every converter uses; each failure names the field that is wrong."""

import json
import math
from collections.abc import Mapping

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from atrium_common.errors import InvalidArgument

MAX_SCHEMA_CHARACTERS = 65_536
"""A longer JSON Schema is refused: compiling it would cost more than answering."""


def refuse(field: str, why: str) -> InvalidArgument:
    """Makes the error that refuses `field`; `why` completes "`field` ..."."""
    return InvalidArgument(f"{field} {why}", field=field)


def whole(field: str, value: int, low: int, high: int | None = None) -> int:
    """Returns `value` if it lies in [low, high].

    Raises:
        InvalidArgument: it does not.
    """
    if value < low or (high is not None and value > high):
        wanted = f"{low} or more" if high is None else f"from {low} to {high}"
        raise refuse(field, f"must be {wanted}, not {value}.")
    return value


def real(field: str, value: float, low: float, high: float, *, above_low: bool = False) -> float:
    """Returns `value` if it is a number in [low, high], or ]low, high] with `above_low`.

    Raises:
        InvalidArgument: it is outside, or not a finite number.
    """
    fits = low < value <= high if above_low else low <= value <= high
    if math.isnan(value) or not fits:
        wanted = f"above {low:g} up to {high:g}" if above_low else f"from {low:g} to {high:g}"
        raise refuse(field, f"must be {wanted}, not {value:g}.")
    return value


def text(field: str, value: str, longest: int | None = None) -> str:
    """Returns `value` if it is not empty and has at most `longest` characters.

    Raises:
        InvalidArgument: it is empty or too long.
    """
    if not value:
        raise refuse(field, "must not be empty.")
    if longest is not None and len(value) > longest:
        raise refuse(field, f"must have at most {longest} characters, not {len(value)}.")
    return value


def count(field: str, length: int, low: int, high: int) -> None:
    """Checks the number of elements of a repeated field.

    Raises:
        InvalidArgument: fewer than `low` or more than `high`.
    """
    if not low <= length <= high:
        wanted = f"at most {high}" if low == 0 else f"{low} to {high}"
        raise refuse(field, f"must have {wanted} elements, not {length}.")


def json_schema(field: str, value: str) -> Mapping[str, object]:
    """Parses a JSON Schema (draft 2020-12) and checks it against the metaschema.

    Raises:
        InvalidArgument: not JSON, not an object, not a schema, or too long.
    """
    if len(value) > MAX_SCHEMA_CHARACTERS:
        raise refuse(field, f"must have at most {MAX_SCHEMA_CHARACTERS} characters.")
    try:
        schema: object = json.loads(value)
    except (ValueError, RecursionError):
        raise refuse(field, "must be a JSON Schema as JSON text.") from None
    if not isinstance(schema, dict):
        raise refuse(field, "must be a JSON object.")
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        where = error.json_path if isinstance(error, SchemaError) else "$"
        raise refuse(field, f"is not a valid JSON Schema (draft 2020-12) at {where}.") from None
    return schema
