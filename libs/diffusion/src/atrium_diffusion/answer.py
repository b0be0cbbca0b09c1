"""What a caller is sent of a request, step by step: encoded, counted, in chunks.

`finishing.py` makes these of an engine's events; `wire.py` writes them as messages.
"""

from dataclasses import dataclass
from enum import StrEnum

from atrium_common.domain import Usage
from atrium_diffusion.domain import PictureFormat, StepTaken
from atrium_diffusion.record import PictureRecord


class Withheld(StrEnum):
    """Why a finished picture is not sent."""

    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPreview:
    """An early view.

    Attributes:
        index: Which picture of the request.
        step: Steps taken when it was made.
        jpeg: At most `finishing.MAX_PREVIEW_BYTES`.
    """

    index: int
    step: int
    jpeg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureStart:
    """A picture is finished: its chunks and its end follow, with nothing between them.

    Attributes:
        index: Which picture of the request.
        format: How it is encoded.
        size: Bytes that follow; 0 if it is withheld.
        record: What made it.
        withheld: Why it is not sent, or ``None``.
    """

    index: int
    format: PictureFormat
    size: int
    record: PictureRecord
    withheld: Withheld | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureChunk:
    """The next bytes of a picture, 64 KiB but for the last."""

    index: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureEnd:
    """All bytes of a picture were sent; a withheld one ends with the digest of no bytes.

    Attributes:
        index: Which picture of the request.
        sha256: Digest of its bytes, 32 raw bytes.
        size: Their number.
    """

    index: int
    sha256: bytes
    size: int


AnswerStep = StepTaken | EncodedPreview | PictureStart | PictureChunk | PictureEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One step of the answer, with everything that was consumed so far.

    Attributes:
        step: What happened; ``None`` only brings usage.
        usage: Cumulative.
    """

    step: AnswerStep | None
    usage: Usage
