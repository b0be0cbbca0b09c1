"""What the service's work comes to, step by step, and what it consumed; the servicer sends it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Generic, TypeVar

from atrium_common.domain import Usage
from atrium_img2text.domain import Caption, FinishReason
from atrium_img2text.reading import DocumentInfo, Page

T = TypeVar("T")

Report = Callable[[Usage], None]
"""Hears of what was consumed as soon as it is, also while nobody takes steps."""


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """A step of a request: its result, and what was consumed so far."""

    result: T
    usage: Usage


@dataclass(frozen=True, slots=True)
class Opening:
    """A document is opened: what it is, and how many of its pages will be read."""

    info: DocumentInfo
    pages_to_read: int


@dataclass(frozen=True, slots=True)
class FormChunk:
    """The next bytes of the whole document's form."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FormEnd:
    """The end of those bytes: their SHA-256, 32 raw bytes, and their number."""

    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The whole answer to question `index` of an analysis, from 0, and why it ended."""

    index: int
    text: str
    finish_reason: FinishReason


Extracted = Opening | Page | FormChunk | FormEnd
"""What a reading brings."""
Analysed = Caption | Answered | Extracted
"""What an analysis brings."""


@dataclass(frozen=True, slots=True)
class AnalysisStep:
    """A step of an analysis: its result, if it has one, and what was consumed so far.

    Attributes:
        result: Of one of its parts.
        usage: Of all parts together, under the model of the first of them.
        usage_by_model: The same by model; adds up to it.
    """

    result: Analysed | None
    usage: Usage
    usage_by_model: Sequence[Usage]


def summed(label: Usage, parts: Iterable[Usage]) -> Usage:
    """Adds up what parts of a request consumed; `label` says under which model."""
    parts = tuple(parts)
    return replace(
        label,
        queue_time=sum((part.queue_time for part in parts), timedelta()),
        inference_time=sum((part.inference_time for part in parts), timedelta()),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        images=sum(part.images for part in parts),
        pages=sum(part.pages for part in parts),
        estimated=any(part.estimated for part in parts),
    )
