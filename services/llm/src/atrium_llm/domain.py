"""Text generation in the engine's terms; what `convert.py` makes of the wire.

Engines take these and give these; nothing here knows protobuf, grpc or settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from atrium_common.domain import Usage


class Role(StrEnum):
    """Who speaks; the values are those of chat templates."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why a choice ended; the values are OpenAI's."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text of a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An encoded image of a message."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One message of a conversation."""

    role: Role
    content: Sequence[TextPart | ImagePart] = ()
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function on offer; `parameters` is a JSON Schema, already parsed."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] | None = None
    strict: bool = False


class ToolMode(StrEnum):
    """Whether the model may, must or must not call tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatInput:
    """A conversation to continue."""

    messages: Sequence[ChatMessage]
    tools: Sequence[Tool] = ()
    tool_mode: ToolMode = ToolMode.AUTO
    tool_name: str | None = None
    parallel_tool_calls: bool = True


@dataclass(frozen=True, slots=True)
class TextInput:
    """Text to continue as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenInput:
    """Token ids to continue as they are."""

    ids: Sequence[int]


PromptInput = ChatInput | TextInput | TokenInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen; ``None`` takes the model's own default.

    Ranges are those of `atrium.llm.v1.SamplingParams`, checked by `convert.py`.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    n: int = 1
    top_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The text must be a JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The text must be JSON that is valid for `schema`."""

    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationJob:
    """Everything that decides a generation. `model` is a catalogue id."""

    model: str
    input: PromptInput
    sampling: Sampling = field(default_factory=Sampling)
    response_format: JsonObject | JsonSchema | None = None
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token and the natural log of its probability before temperature and masks."""

    token_id: int
    token: str
    token_bytes: bytes
    logprob: float
    top: Sequence["TokenLogprob"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceDelta:
    """What is new in one choice. Only the last delta has a finish reason."""

    index: int = 0
    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: FinishReason | None = None
    stop: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEvent:
    """One step of a generation: new deltas and the cumulative usage.

    The first event of a stream has no deltas: it follows prefill and says how
    many tokens were read.
    """

    deltas: Sequence[ChoiceDelta] = ()
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingJob:
    """Texts (or token ids) to embed; `model` is a catalogue id."""

    model: str
    inputs: Sequence[TextInput | TokenInput]
    dimensions: int | None = None
    truncate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingResult:
    """Unit-length vectors in the order of the inputs."""

    vectors: Sequence[Sequence[float]]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankJob:
    """Documents to order by relevance to `query`; `model` is a catalogue id."""

    model: str
    query: str
    documents: Sequence[str]
    top_n: int | None = None


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's index in the request and its score."""

    index: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """Documents, most relevant first."""

    results: Sequence[RankedDocument]
    usage: Usage
