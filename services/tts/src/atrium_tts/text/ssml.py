"""Reads the SSML subset into runs; `plan.py` calls it.

The subset: speak, p, s, break, prosody (rate), say-as (digits, date), sub and lang, with
comments and CDATA. Whatever else there is, the caller is told by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from atrium_tts.text.plain import read_characters
from atrium_tts.text.run import Run
from atrium_tts.text.say_as import say_as
from atrium_tts.text.ssml_source import XML_LANGUAGE, parse_ssml
from atrium_tts.text.ssml_values import (
    check_rate,
    invalid,
    read_break,
    read_language,
    read_rate,
    shown,
)

_LONGEST_SOURCE = 20_000
_LONGEST_PAUSES = timedelta(seconds=60)

_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "speak": frozenset({"version", XML_LANGUAGE}),
    "p": frozenset({XML_LANGUAGE}),
    "s": frozenset({XML_LANGUAGE}),
    "break": frozenset({"time", "strength"}),
    "prosody": frozenset({"rate"}),
    "say-as": frozenset({"interpret-as", "format"}),
    "sub": frozenset({"alias"}),
    "lang": frozenset({XML_LANGUAGE}),
}
_REQUIRED = {"prosody": "rate", "sub": "alias", "lang": XML_LANGUAGE, "say-as": "interpret-as"}
_NO_CHILDREN = ("break", "say-as", "sub")
_NOT_WHOLE = ("break", "prosody", "lang")


@dataclass(frozen=True, slots=True)
class _Element:
    """An open element and what holds inside it."""

    name: str
    attributes: Mapping[str, str]
    start: int
    language: str = ""
    rate: float = 1.0


def read_ssml(source: str, *, language: str, whole: bool, longest: int) -> list[Run]:
    """Makes runs of SSML; they change where language, rate or paragraph do, and at breaks.

    Args:
        source: The SSML. At most 20000 characters and 16 levels.
        language: The job's, for dates outside any `xml:lang`.
        whole: It will be one utterance, so what only a part can have is refused.
        longest: Code points that an utterance, and so a stand-in, may have.

    Raises:
        InvalidArgument: It is not well-formed, or beyond the subset; `field` is "ssml".
    """
    if len(source) > _LONGEST_SOURCE:
        raise invalid(
            f"The SSML has {len(source)} characters; {_LONGEST_SOURCE} are taken.",
            reason="TEXT_TOO_LONG",
        )
    reader = _Reader(language=language, whole=whole, longest=longest)
    parse_ssml(source, reader)
    return reader.runs


class _Reader:
    """Makes runs of the parser's events.

    Attributes:
        runs: What was read so far; some may have nothing to say, only a pause.
    """

    def __init__(self, *, language: str, whole: bool, longest: int) -> None:
        self.runs: list[Run] = []
        self._job_language = language
        self._whole = whole
        self._longest = longest
        self._open: list[_Element] = []
        self._inside: list[str] = []
        self._pauses = timedelta()
        self._fresh = True

    def start(self, name: str, attributes: Mapping[str, str], place: int) -> None:
        """Checks an element and lets it hold from here on."""
        self._check(name, attributes)
        parent = self._open[-1] if self._open else _Element("", {}, 0)
        language, rate = parent.language, parent.rate
        if XML_LANGUAGE in attributes:
            language = read_language(name, attributes[XML_LANGUAGE])
        if name == "prosody":
            rate *= read_rate(attributes["rate"])
            check_rate(rate)
        if name == "break":
            self._pause(read_break(attributes))
        self._open.append(_Element(name, attributes, place, language, rate))
        self._inside.clear()
        if name in ("p", "s"):
            self._fresh = True

    def end(self, name: str, place: int) -> None:
        """Says what stands for a `sub` or `say-as`; ends a paragraph or sentence."""
        element = self._open.pop()
        if name in ("sub", "say-as"):
            self._stand_in(element, "".join(self._inside), place)
        if name in ("p", "s"):
            self._fresh = True

    def text(self, text: str, places: range, width: int) -> None:
        """Adds what can be said of a text."""
        element = self._open[-1]
        if element.name == "break":
            raise invalid("break: it must be empty.")
        if element.name in ("sub", "say-as"):
            self._inside.append(text)
            return
        read = read_characters(text, field="ssml", start=places.start)
        # Line ends are layout in SSML.
        said = read.text.replace("\n", " ").replace("\f", " ")
        run = self._run(element) if said.strip() else (self.runs[-1] if self._joins() else None)
        if run is not None and self._same(run, element):
            run.add(said, read.starts, [start + width for start in read.starts])

    def _stand_in(self, element: _Element, inside: str, end: int) -> None:
        if element.name == "sub":
            said, count = element.attributes["alias"], len(element.attributes["alias"])
        else:
            said = say_as(
                inside, element.attributes, language=element.language or self._job_language
            )
            count = len(inside)
        said = " ".join(read_characters(said, field="ssml").text.split())
        if len(said) > self._longest:
            raise invalid(
                f"{element.name}: {len(said)} characters would be said; "
                f"{self._longest} may stand together."
            )
        if said:
            self._run(element).add_solid(said, start=element.start, end=end, count=count)

    def _check(self, name: str, attributes: Mapping[str, str]) -> None:
        parent = self._open[-1].name if self._open else ""
        if name not in _ATTRIBUTES:
            raise _unsupported(f"The element {shown(name)} is not supported.")
        if (name == "speak") != (parent == ""):
            raise invalid("The outermost element, and only that, must be speak.")
        if parent in _NO_CHILDREN:
            raise _unsupported(f"{parent}: the element {shown(name)} can't stand in it.")
        around = [element.name for element in self._open]
        if (name == "p" and ("p" in around or "s" in around)) or (name == "s" and "s" in around):
            raise _unsupported(f"The element {shown(name)} can't stand inside a p or s.")
        for attribute in attributes:
            if attribute not in _ATTRIBUTES[name]:
                raise _unsupported(f"{name}: the attribute {shown(attribute)} is not supported.")
        required = _REQUIRED.get(name)
        if required and required not in attributes:
            raise invalid(f"{name}: {required} is missing.")
        if attributes.get("version", "1.1") not in ("1.0", "1.1"):
            raise _unsupported(f"speak: version {shown(attributes['version'])} is not supported.")
        if self._whole and (name in _NOT_WHOLE or (name in "ps" and XML_LANGUAGE in attributes)):
            what = name if name in _NOT_WHOLE else f"xml:lang of {name}"
            raise _unsupported(f"This model speaks texts whole: {what} is not supported.")

    def _pause(self, length: timedelta) -> None:
        self._pauses += length
        if self._pauses > _LONGEST_PAUSES:
            raise invalid("The breaks come to more than 60 s.", reason="SSML_PAUSES_TOO_LONG")
        if self.runs:
            self.runs[-1].pause_after += length
        else:
            self.runs.append(Run(pause_before=length))
        self._fresh = True

    def _joins(self) -> bool:
        return bool(self.runs) and not self._fresh

    @staticmethod
    def _same(run: Run, element: _Element) -> bool:
        return run.language == element.language and run.rate == element.rate

    def _run(self, element: _Element) -> Run:
        if not self._joins() or not self._same(self.runs[-1], element):
            self.runs.append(Run(language=element.language, rate=element.rate))
        self._fresh = False
        return self.runs[-1]


def _unsupported(message: str) -> Exception:
    return invalid(message, reason="SSML_UNSUPPORTED")
