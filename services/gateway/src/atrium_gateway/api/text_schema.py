"""What the JSON of chat and of completions has in common. No logic."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Model = Annotated[str, Meta(max_length=128)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Choices = Annotated[int, Meta(ge=1, le=16)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=16)]
LogitBias = Annotated[
    dict[Annotated[int, Meta(ge=0, le=2**31 - 1)], Annotated[float, Meta(ge=-100, le=100)]],
    Meta(max_length=1024),
]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """What a stream brings besides text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Input(Struct, forbid_unknown_fields=True, kw_only=True):
    """What chat and completion requests share."""

    model: Model = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Choices | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    top_k: Count | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    # Accepted without effect: they ask for nothing.
    user: str | None = None
    metadata: Mapping[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """What a request consumed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Logprob(Struct, frozen=True):
    """One token's log probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list["Logprob"] | UnsetType = UNSET


class Logprobs(Struct, frozen=True):
    """Log probabilities of a choice's tokens."""

    content: list[Logprob]
    refusal: None = None
