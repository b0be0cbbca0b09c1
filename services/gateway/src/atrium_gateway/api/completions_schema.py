"""The JSON of `/v1/completions`. No logic."""

from typing import Annotated

from msgspec import Meta, Struct

from atrium_gateway.api.text_schema import Input, Usage

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Ids = Annotated[list[TokenId], Meta(min_length=1)]
MAX_PROMPTS = 128


class CompletionRequest(Input, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | Annotated[list[str | TokenId | Ids], Meta(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


class LegacyLogprobs(Struct, frozen=True):
    """Log probabilities in four lists of one length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Struct, frozen=True):
    """One answer, or a part of it."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: str | None


class Completion(Struct, frozen=True, kw_only=True):
    """Answer of `POST /v1/completions`, whole or one event of a stream."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None
    object: str = "text_completion"
    system_fingerprint: str | None = None
