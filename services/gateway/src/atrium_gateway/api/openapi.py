"""The schemas that `/docs` shows, made from the structs that the endpoints really use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

_REF = "#/components/schemas/{name}"


KEY_PARAMETER: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeats with the same key and body get the first answer; for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
"""A parameter of every POST."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How `/docs` describes an endpoint, and the structs that this refers to."""

    description: dict[str, Any]
    structs: tuple[type[Struct], ...] = ()


def schemas(kinds: Sequence[type[Struct]]) -> dict[str, Any]:
    """Gives the schemas of the structs and of what they contain, by name."""
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    return dict(components)


def operation(
    *,
    body: type[Struct] | None = None,
    form: type[Struct] | None = None,
    query: type[Struct] | None = None,
    answer: type[Struct] | None = None,
    path: str = "",
    files: Mapping[str, Any] | None = None,
    raw: bool = False,
    media: Sequence[str] = (),
    streams: bool = False,
    status: int = 200,
    public: bool = False,
) -> Operation:
    """Gives the part of an operation's description that FastAPI can't see.

    Args:
        body: Struct of a JSON body.
        form: Struct of a form's fields, beside its files.
        query: Struct of the query.
        answer: Struct of the answer.
        path: Name of the path's parameter, if it has one.
        files: Schema of the form's files; one `file` if not given.
        raw: True if the body may be the file itself.
        media: Types of the file that the answer may be, e.g. ``"audio/*"``.
        streams: True if the answer may be server-sent events.
        status: Of an answer that is no error.
        public: True if no credential is needed.
    """
    content: dict[str, Any] = {}
    if body is not None:
        content["application/json"] = {"schema": _ref(body)}
    if form is not None:
        content["multipart/form-data"] = {"schema": {"allOf": [_ref(form), files or _FILE]}}
    if raw:
        content["application/octet-stream"] = {"schema": _BINARY}
    response = _response(answer, media=media, streams=streams)
    extra: dict[str, Any] = {"responses": {str(status): response}}
    if content:
        extra["requestBody"] = {"required": True, "content": content}
    parameters = _query(query) if query is not None else []
    if path:
        parameters.append(
            {"name": path, "in": "path", "required": True, "schema": {"type": "string"}}
        )
    if parameters:
        extra["parameters"] = parameters
    if not public:
        extra["security"] = [{"bearer": []}]
    return Operation(extra, tuple(kind for kind in (body, form, query, answer) if kind))


def with_key(method: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a description; one of a POST with the header that every POST takes."""
    if method != "POST":
        return dict(description)
    return {**description, "parameters": [*description.get("parameters", ()), KEY_PARAMETER]}


_BINARY: Mapping[str, Any] = {"type": "string", "format": "binary"}
_FILE: Mapping[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": _BINARY},
}
READ_FILE: Mapping[str, Any] = {"type": "object", "properties": {"file": _BINARY}}
"""The file of a form that may name an address instead."""
PICTURE_FILES: Mapping[str, Any] = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "array", "items": _BINARY}, "mask": _BINARY},
}
"""Files of an edit: one picture or several, and a mask."""


def _ref(kind: type[Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}


def _response(
    answer: type[Struct] | None, *, media: Sequence[str], streams: bool
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer is not None:
        content["application/json"] = {"schema": _ref(answer)}
    for kind in media:
        content[kind] = {"schema": {"type": "string", "format": "binary"}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "Success", "content": content}


def _query(kind: type[Struct]) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], ref_template=_REF)
    properties = components[kind.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": shape}
        for name, shape in properties.items()
    ]
