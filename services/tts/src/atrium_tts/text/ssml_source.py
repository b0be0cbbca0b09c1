"""Parses SSML into events that know their place in the source; `ssml.py` calls it.

expat itself is used, because tree parsers tell no offsets. What makes XML dangerous is
refused as soon as it begins: document types (and with them entities and whatever they
fetch or multiply), processing instructions and deep nesting.
"""

from collections.abc import Mapping
from typing import Protocol
from xml.parsers import expat

from atrium_tts.text.ssml_values import invalid, shown

SSML_NAMESPACE = "http://www.w3.org/2001/10/synthesis"
XML_LANGUAGE = "xml:lang"

_XML_NAMESPACE = "http://www.w3.org/XML/1998/namespace"
_DEPTH = 16


class SsmlHandler(Protocol):
    """What is told of a source, in its order; places are code points."""

    def start(self, name: str, attributes: Mapping[str, str], place: int) -> None:
        """An element begins; its ``<`` stands at `place`."""
        ...

    def end(self, name: str, place: int) -> None:
        """An element ended; its last ``>`` stands before `place`."""
        ...

    def text(self, text: str, places: range, width: int) -> None:
        """There is text, each character of it `width` code points wide from its place."""
        ...


class _Parser:
    def __init__(self, source: str, handler: SsmlHandler) -> None:
        try:
            self._bytes = source.encode()
        except UnicodeEncodeError as error:
            raise invalid(
                f"The SSML holds a lone surrogate at character {error.start}.",
                reason="INVALID_CHARACTER",
            ) from error
        self._source = source
        self._handler = handler
        self._depth = 0
        # The encoding that a declaration may name was lost when the text was decoded.
        parser = expat.ParserCreate("utf-8", namespace_separator=" ")
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        self._parser = parser
        # Most SSML is ASCII, where bytes and code points are the same.
        self._ascii = len(source) == len(self._bytes)
        self._last_byte = self._last_place = 0

    def run(self) -> None:
        try:
            self._parser.Parse(self._bytes, True)
        except expat.ExpatError as error:
            what = expat.ErrorString(error.code)
            raise invalid(
                f"The SSML is not well-formed: {what} at line {error.lineno}, "
                f"column {error.offset + 1}."
            ) from error

    def _place(self) -> int:
        byte = self._parser.CurrentByteIndex
        if self._ascii:
            return byte
        # Events come in the order of the source, so only what is new is decoded.
        self._last_place += len(self._bytes[self._last_byte : byte].decode())
        self._last_byte = byte
        return self._last_place

    def _start(self, name: str, attributes: list[str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH:
            raise invalid(f"The SSML has more than {_DEPTH} levels.", reason="SSML_TOO_DEEP")
        local = _local(name)
        pairs = zip(attributes[::2], attributes[1::2], strict=True)
        given = {_attribute(local, key): value for key, value in pairs}
        self._handler.start(local, given, self._place())

    def _end(self, name: str) -> None:
        self._depth -= 1
        # An empty element ends where it began: its tag is behind the place either way.
        place = self._place()
        self._handler.end(_local(name), _tag_end(self._source, place))

    def _text(self, text: str) -> None:
        place = self._place()
        if self._source[place] == "&":
            width = self._source.index(";", place) + 1 - place
            self._handler.text(text, range(place, place + 1), width)
        else:
            self._handler.text(text, range(place, place + len(text)), 1)

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        if (uri or SSML_NAMESPACE) not in (SSML_NAMESPACE, _XML_NAMESPACE):
            raise invalid(f"The namespace {shown(uri or '')} is not SSML's.")

    def _doctype(self, *_: object) -> None:
        raise invalid("A document type (DOCTYPE) is not taken.", reason="SSML_UNSUPPORTED")

    def _instruction(self, target: str, _: str) -> None:
        raise invalid(
            f"The processing instruction {shown(target)} is not taken.", reason="SSML_UNSUPPORTED"
        )


def parse_ssml(source: str, handler: SsmlHandler) -> None:
    """Tells a handler what an SSML source holds.

    Raises:
        InvalidArgument: It is not well-formed, has more than 16 levels, another
            namespace, a document type or a processing instruction; or the handler
            refused something.
    """
    _Parser(source, handler).run()


def _local(name: str) -> str:
    return name.rsplit(" ", 1)[-1]


def _attribute(element: str, name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    if namespace == _XML_NAMESPACE:
        return f"xml:{local}"
    if namespace:
        raise invalid(f"{element}: the attribute {shown(local)} has a namespace.")
    return name


def _tag_end(source: str, place: int) -> int:
    """Returns the place behind a tag that begins at `place`; quoted values may hold ``>``."""
    quote = ""
    for index in range(place, len(source)):
        character = source[index]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == ">":
            return index + 1
    return len(source)
