"""Plain types that every engine and service shares; no grpc, no settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class Capability(StrEnum):
    """What a model can do; the values travel on the wire and in the catalogue."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    TRANSCRIPTION = "transcription"
    SPEECH = "speech"
    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    IMAGE_TO_TEXT = "image-to-text"
    OCR = "ocr"


class ModelState(StrEnum):
    """Where a model stands: in memory and serving, or on its way there."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model as an engine reports it.

    Attributes:
        id: Catalogue id.
        capabilities: What it can do.
        engine: Name of the engine that runs it.
        aliases: Other names that select it.
        state: Where it stands.
        digest: SHA-256 of its main weight file, lower-case hex, or ``""``.
        license: SPDX id or the licence's own name.
        context_length: Most tokens of input and output together; 0 if it does
            not apply.
        embedding_dimensions: Values in an embedding; 0 if it does not apply.
        verified_at: When a verification pass last succeeded since loading.
        detail: Why the state is FAILED, for operators.
        memory_bytes: What it takes of its device's memory now; 0 if it is not loaded, or
            not known.
        last_used_at: When a request last ran on it since loading.
    """

    id: str
    capabilities: Sequence[Capability]
    engine: str
    aliases: Sequence[str] = ()
    state: ModelState = ModelState.UNLOADED
    digest: str = ""
    license: str = ""
    context_length: int = 0
    embedding_dimensions: int = 0
    verified_at: datetime | None = None
    detail: str = ""
    memory_bytes: int = 0
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request consumed so far; cumulative. Mirrors `atrium.common.v1.Usage`.

    Counts are 0 or more. Times are wall-clock durations.
    """

    model: str = ""
    model_digest: str = ""
    engine: str = ""
    queue_time: timedelta = field(default=timedelta())
    inference_time: timedelta = field(default=timedelta())
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    characters: int = 0
    input_audio: timedelta = field(default=timedelta())
    output_audio: timedelta = field(default=timedelta())
    images: int = 0
    millimegapixel_steps: int = 0
    pages: int = 0
    estimated: bool = False
