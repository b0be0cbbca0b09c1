"""What the llm service is asked for and gives back, in the gateway's own terms.

The endpoints make these, `llm.py` carries them. Structs rather than dataclasses: one is
made for every streamed token.
"""

from collections.abc import Mapping, Sequence

import msgspec


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A call that the model asks for; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation.

    Attributes:
        role: ``"system"``, ``"developer"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: Texts, and encoded images as bytes.
    """

    role: str
    content: Sequence[str | bytes] = ()
    name: str = ""
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function on offer; `parameters` is a JSON Schema as text, ``""`` for none."""

    name: str
    description: str = ""
    parameters: str = ""
    strict: bool = False


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """Messages to continue.

    Attributes:
        tool_mode: ``"auto"``, ``"none"``, ``"required"`` or ``"named"``; ``""`` leaves
            it to the service.
        tool_name: The tool to call; only with ``"named"``.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_mode: str = ""
    tool_name: str = ""
    parallel_tool_calls: bool | None = None


Prompt = Conversation | str | Sequence[int]
"""A conversation, text, or token ids."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """As `atrium.llm.v1.SamplingParams`; ``None`` takes the model's own default."""

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
    n: int | None = None
    top_logprobs: int | None = None
    logit_bias: Mapping[int, float] | None = None
    min_tokens: int | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides a generation.

    Attributes:
        model: Catalogue id.
        json_object: True if the text must be a JSON object.
        json_schema: JSON Schema that the text must be valid for, as text.
        echo: Give the prompt before the text.
        min_interval: Least time between two events, in seconds.
    """

    model: str
    prompt: Prompt
    sampling: Sampling
    json_object: bool = False
    json_schema: str | None = None
    echo: bool = False
    min_interval: float = 0.0


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and the natural log of its probability."""

    token: str
    token_bytes: bytes
    logprob: float
    top: Sequence["TokenLogprob"] = ()


class Delta(msgspec.Struct, frozen=True):
    """What is new in one choice; `finish_reason` is ``None`` until its last delta."""

    index: int
    text: str
    finish_reason: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[TokenLogprob] = ()
