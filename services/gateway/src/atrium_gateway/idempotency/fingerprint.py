"""Tells whether two requests are the same, from their bodies as they stream in.

A form counts by its parts, not by its bytes: a client that sends it again chooses another
boundary each time.
"""

import hashlib
from collections.abc import Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from atrium_gateway.idempotency.domain import length_prefixed

_FORM = b"multipart/form-data"


class Fingerprint:
    """SHA-256 over method, path, query, the content type's essence and the body."""

    def __init__(self, *, method: str, path: str, query: bytes, content_type: str) -> None:
        """Begins with an empty body.

        Args:
            method: HTTP method.
            path: Path, decoded.
            query: Query string as it was sent.
            content_type: The header, or ``""``.
        """
        essence, options = parse_options_header(content_type)
        self._head = (method.encode(), path.encode(), query, essence.lower())
        self._raw = hashlib.sha256()
        self._form = _form(essence.lower(), options)

    def add(self, piece: bytes) -> None:
        """Takes the next piece of the body."""
        self._raw.update(piece)
        if self._form is not None:
            try:
                self._form.add(piece)
            except FormParserError:
                self._form = None  # not a form at all: its bytes count

    def digest(self) -> bytes:
        """The fingerprint, 32 bytes; call it once, after the last piece."""
        whole = self._form is not None and self._form.whole
        body = self._form.digest() if self._form and whole else self._raw.digest()
        parts = (*self._head, b"form" if whole else b"raw", body)
        return hashlib.sha256(b"".join(length_prefixed(parts))).digest()


class _Form:
    """Digests a form: of each part its name, file name, content type and data."""

    def __init__(self, boundary: bytes) -> None:
        self._parts = hashlib.sha256()
        self._data = hashlib.sha256()
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_part_data": lambda data, start, end: self._data.update(data[start:end]),
                "on_part_end": self._end,
            },
        )

    @property
    def whole(self) -> bool:
        """Whether the last boundary has come."""
        return self._parser.state == MultipartState.END

    def add(self, piece: bytes) -> None:
        self._parser.write(piece)

    def digest(self) -> bytes:
        return self._parts.digest()

    def _begin(self) -> None:
        self._data = hashlib.sha256()
        self._headers = {}

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        media = self._headers.get(b"content-type", b"").strip().lower()
        named = [text for pair in sorted(options.items()) for text in pair]
        count = len(named).to_bytes(8, "big")
        for part in length_prefixed((kind, count, *named, media, self._data.digest())):
            self._parts.update(part)


def _form(essence: bytes, options: Mapping[bytes, bytes]) -> _Form | None:
    boundary = options.get(b"boundary", b"")
    if essence != _FORM or not boundary:
        return None
    try:
        return _Form(boundary)
    except FormParserError:
        return None
