"""The JSON of answers of `/v1/chat/completions`, whole and streamed. No logic."""

from msgspec import UNSET, Struct, UnsetType

from atrium_gateway.api.text_schema import Logprobs, Usage


class AnswerFunction(Struct, frozen=True):
    """A tool's name and its arguments, a JSON object as text."""

    name: str
    arguments: str


class AnswerToolCall(Struct, frozen=True, kw_only=True):
    """A call that the model asks for; `index` only in a stream."""

    id: str
    function: AnswerFunction
    type: str = "function"
    index: int | UnsetType = UNSET


class AnswerMessage(Struct, frozen=True):
    """What the model says."""

    content: str | None
    tool_calls: list[AnswerToolCall] | UnsetType = UNSET
    role: str = "assistant"
    refusal: None = None


class Choice(Struct, frozen=True):
    """One whole answer."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: str


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: str = "chat.completion"
    system_fingerprint: str | None = None


class ChunkDelta(Struct, frozen=True, gc=False):
    """What is new in an answer."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[AnswerToolCall] | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


class ChunkChoice(Struct, frozen=True, gc=False):
    """Part of one answer."""

    index: int
    delta: ChunkDelta
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class ChatChunk(Struct, frozen=True, gc=False, kw_only=True):
    """One event of a streamed answer; `usage` only where it was asked for."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    object: str = "chat.completion.chunk"
    system_fingerprint: str | None = None
    usage: Usage | UnsetType | None = UNSET
