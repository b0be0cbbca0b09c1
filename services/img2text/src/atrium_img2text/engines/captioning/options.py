"""What a catalogue entry may set for a model that captions (its `options`)."""

from pydantic import Field

from atrium_common.engine_options import EngineOptions


class CaptioningOptions(EngineOptions):
    """Options of every family.

    Attributes:
        device: Where it runs, e.g. ``"cuda:0"``; default is a GPU if there is one.
        threads: CPU threads that one operation may use.
        max_batch: Most rows of a batch: a candidate is one, and each beam of a search.
    """

    device: str | None = None
    threads: int = Field(default=1, ge=1, le=256)
    max_batch: int = Field(default=16, ge=1, le=512)
