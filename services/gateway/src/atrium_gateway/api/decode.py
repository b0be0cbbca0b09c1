"""JSON bodies and query strings into checked structs; what is wrong is named by its path."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

import msgspec

from atrium_common.errors import InvalidArgument

S = TypeVar("S", bound=msgspec.Struct)

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


def decode(body: bytes, kind: type[S]) -> S:
    """Reads a JSON body.

    Raises:
        InvalidArgument: Not JSON, an unknown parameter, a missing one, a wrong type
            or a value out of range; `field` is the path, e.g. ``"messages[0].role"``.
    """
    try:
        value: S = _decoder(kind).decode(body)
    except msgspec.ValidationError as err:
        raise explain(str(err)) from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise InvalidArgument("The body is not valid JSON.", reason="INVALID_JSON") from err
    return value


def convert(values: Mapping[str, object], kind: type[S]) -> S:
    """Checks form fields or query parameters, which are text: ``"1"`` may be a number.

    Raises:
        InvalidArgument: As for `decode`.
    """
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as err:
        raise explain(str(err)) from err


def explain(problem: str) -> InvalidArgument:
    """Turns a validation message into an error that names the parameter."""
    match = _WHERE.match(problem)
    what, path = (match["what"], (match["path"] or "").lstrip(".")) if match else (problem, "")
    if found := _UNKNOWN.match(what):
        name = f"{path}.{found[1]}" if path else found[1]
        return InvalidArgument(
            f"Unknown parameter: '{name}'.", reason="UNKNOWN_PARAMETER", field=name
        )
    if found := _MISSING.match(what):
        name = f"{path}.{found[1]}" if path else found[1]
        return InvalidArgument(
            f"Missing required parameter: '{name}'.",
            reason="MISSING_REQUIRED_PARAMETER",
            field=name,
        )
    where = f" for '{path}'" if path else ""
    return InvalidArgument(
        f"Invalid value{where}: {what[:1].lower()}{what[1:]}.",
        reason="INVALID_VALUE",
        field=path or None,
    )


@lru_cache(maxsize=64)
def _decoder(kind: type[S]) -> msgspec.json.Decoder[S]:
    return msgspec.json.Decoder(kind)
