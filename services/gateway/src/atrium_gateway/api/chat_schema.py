"""The JSON of a request to `/v1/chat/completions`, type by type. No logic."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from atrium_gateway.api.text_schema import Count, Input

ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class TextPart(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Text of a message."""

    text: str


class ImageUrl(Struct, forbid_unknown_fields=True):
    """An image inside its own URL, or at an address that the operator allows."""

    url: Annotated[str, Meta(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Struct, forbid_unknown_fields=True, tag_field="type", tag="image_url"):
    """Image of a message."""

    image_url: ImageUrl


Text = str | list[TextPart]
SpeakerName = Annotated[str, Meta(max_length=64)]


class SystemMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """Instructions of the operator."""

    content: Text
    name: SpeakerName | None = None


class DeveloperMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="developer"):
    """Instructions of the developer."""

    content: Text
    name: SpeakerName | None = None


class UserMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """What the person says."""

    content: str | list[TextPart | ImagePart]
    name: SpeakerName | None = None


class FunctionCall(Struct, forbid_unknown_fields=True):
    """A tool's name and its arguments, a JSON object as text."""

    name: str
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A call that the model asked for."""

    id: str
    function: FunctionCall


class AssistantMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="assistant"):
    """What the model said. An answer of ours may be sent back as it came."""

    content: Text | None = None
    name: SpeakerName | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Raw], Meta(max_length=0)] | None = None


class ToolMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """The result of a tool call."""

    content: Text
    tool_call_id: Annotated[str, Meta(min_length=1)]


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Struct, forbid_unknown_fields=True):
    """A function on offer; `parameters` is a JSON Schema."""

    name: ToolName
    description: str | None = None
    parameters: Raw | UnsetType = UNSET
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A tool on offer."""

    function: Function


class FunctionName(Struct, forbid_unknown_fields=True):
    """Names a function."""

    name: ToolName


class NamedTool(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """The tool that must be called."""

    function: FunctionName


class TextFormat(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(Struct, forbid_unknown_fields=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(Struct, forbid_unknown_fields=True):
    """A named JSON Schema. The text always follows it, with `strict` or without."""

    name: ToolName
    schema: Raw
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, forbid_unknown_fields=True, tag_field="type", tag="json_schema"):
    """JSON that is valid for a schema."""

    json_schema: JsonSchema


class ChatRequest(Input, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
