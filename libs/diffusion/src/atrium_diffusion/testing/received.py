"""The answer of a picture service as its caller puts it together, for both services' tests."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from atrium_common.chunks import CHUNK_BYTES
from atrium_diffusion.domain import Pixels

_COUNTS = ("images", "millimegapixel_steps")
_TIMES = ("inference_time", "queue_time")


@dataclass(frozen=True, eq=False)
class ReceivedPicture:
    """A finished picture.

    Attributes:
        start: The message that announced it.
        data: Its file; ``b""`` if it is withheld.
    """

    start: Any
    data: bytes

    @property
    def pixels(self) -> Pixels:
        """What the file shows."""
        return np.array(Image.open(io.BytesIO(self.data)).convert("RGB"))


@dataclass(frozen=True, eq=False)
class Received:
    """A whole answer.

    Attributes:
        info: What came first.
        progress: Steps, in order.
        previews: Early views, in order.
        pictures: Finished pictures, by index.
        usage: The last one.
    """

    info: Any
    progress: Sequence[Any]
    previews: Sequence[Any]
    pictures: Sequence[ReceivedPicture]
    usage: Any


def received(answers: Iterable[Any]) -> Received:
    """Puts the messages of an answer together.

    Raises:
        AssertionError: Their order, digests, sizes or usages are not what the proto promises.
    """
    answers = list(answers)
    _check_usages([answer.usage for answer in answers])
    kinds = [answer.WhichOneof("step") for answer in answers]
    _demand(kinds[0] == "info" and kinds.count("info") == 1, "the info comes first, once")
    pictures: dict[int, ReceivedPicture] = {}
    steps = iter(answers)
    for answer in steps:
        if answer.WhichOneof("step") == "start":
            picture = _picture(answer.start, steps)
            _demand(answer.start.index not in pictures, "a picture comes once")
            pictures[answer.start.index] = picture
    _demand(sorted(pictures) == list(range(len(pictures))), "no picture is missing")
    return Received(
        info=answers[0].info,
        progress=[a.progress for a in answers if a.WhichOneof("step") == "progress"],
        previews=[a.preview for a in answers if a.WhichOneof("step") == "preview"],
        pictures=[pictures[index] for index in sorted(pictures)],
        usage=answers[-1].usage,
    )


def _picture(start: Any, steps: Any) -> ReceivedPicture:
    data = b""
    while (answer := next(steps)).WhichOneof("step") == "chunk":
        _demand(answer.chunk.index == start.index, "pictures are not mixed")
        _demand(0 < len(answer.chunk.chunk.data) <= CHUNK_BYTES, "chunks are small")
        data += answer.chunk.chunk.data
    _demand(answer.WhichOneof("step") == "end", "chunks are followed by their end")
    end = answer.end.end
    _demand(answer.end.index == start.index, "an end is that of its picture")
    _demand(start.size == end.size == len(data), "sizes hold")
    _demand(end.sha256 == hashlib.sha256(data).digest(), "the digest holds")
    return ReceivedPicture(start, data)


def _check_usages(usages: Sequence[Any]) -> None:
    for earlier, later in pairwise(usages):
        for name in _COUNTS:
            _demand(getattr(earlier, name) <= getattr(later, name), f"{name} only grows")
        for name in _TIMES:
            grown = getattr(later, name).ToTimedelta() - getattr(earlier, name).ToTimedelta()
            _demand(grown.total_seconds() >= 0, f"{name} only grows")


def _demand(kept: bool, promise: str) -> None:
    if not kept:
        raise AssertionError(f"not kept: {promise}")
