"""Conversations, their messages and tools: from the wire to the domain."""

import json
import re
from collections.abc import Sequence

from atrium.llm.v1 import llm_pb2 as pb
from atrium_llm.convert.checks import count, json_schema, refuse, text
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    ImagePart,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolMode,
)

MAX_TOOLS = 128
MAX_NAME_CHARACTERS = 64

_ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_DEVELOPER: Role.DEVELOPER,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_MODES = {
    pb.ToolChoice.MODE_UNSPECIFIED: ToolMode.AUTO,
    pb.ToolChoice.MODE_AUTO: ToolMode.AUTO,
    pb.ToolChoice.MODE_NONE: ToolMode.NONE,
    pb.ToolChoice.MODE_REQUIRED: ToolMode.REQUIRED,
    pb.ToolChoice.MODE_NAMED: ToolMode.NAMED,
}
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


def chat_input(wire: pb.ChatInput, field: str) -> ChatInput:
    """Makes a conversation; `field` is the path of `wire` in its request.

    Raises:
        InvalidArgument: a field is out of its range or doesn't fit the others.
    """
    if not wire.messages:
        raise refuse(f"{field}.messages", "must have at least one message.")
    tools = _tools(wire.tools, f"{field}.tools")
    mode, name = _tool_choice(wire.tool_choice, tools, f"{field}.tool_choice")
    return ChatInput(
        messages=tuple(
            _message(message, f"{field}.messages[{index}]")
            for index, message in enumerate(wire.messages)
        ),
        tools=tools,
        tool_mode=mode,
        tool_name=name,
        parallel_tool_calls=(
            wire.parallel_tool_calls if wire.HasField("parallel_tool_calls") else True
        ),
    )


def _message(wire: pb.ChatMessage, field: str) -> ChatMessage:
    role = _ROLES.get(wire.role)
    if role is None:
        raise refuse(f"{field}.role", "must be a known role.")
    if wire.tool_calls and role is not Role.ASSISTANT:
        raise refuse(f"{field}.tool_calls", "is only for messages of the assistant.")
    if not wire.content and not wire.tool_calls:
        raise refuse(f"{field}.content", "must not be empty.")
    if role is Role.TOOL:
        text(f"{field}.tool_call_id", wire.tool_call_id)
    elif wire.tool_call_id:
        raise refuse(f"{field}.tool_call_id", "is only for messages of a tool.")
    if len(wire.name) > MAX_NAME_CHARACTERS:
        raise refuse(f"{field}.name", f"must have at most {MAX_NAME_CHARACTERS} characters.")
    return ChatMessage(
        role=role,
        content=tuple(
            _part(part, f"{field}.content[{index}]") for index, part in enumerate(wire.content)
        ),
        name=wire.name or None,
        tool_calls=tuple(
            _tool_call(call, f"{field}.tool_calls[{index}]")
            for index, call in enumerate(wire.tool_calls)
        ),
        tool_call_id=wire.tool_call_id or None,
    )


def _part(wire: pb.ContentPart, field: str) -> TextPart | ImagePart:
    kind = wire.WhichOneof("part")
    if kind == "text":
        return TextPart(wire.text)
    if kind == "image":
        if not _is_image(wire.image):
            raise refuse(f"{field}.image", "must be a PNG, JPEG, WebP or GIF image.")
        return ImagePart(wire.image)
    raise refuse(field, "must hold text or an image.")


def _is_image(data: bytes) -> bool:
    return data.startswith(_IMAGE_STARTS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _tool_call(wire: pb.ToolCall, field: str) -> ToolCall:
    text(f"{field}.id", wire.id)
    _tool_name(f"{field}.name", wire.name)
    try:
        arguments: object = json.loads(wire.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise refuse(f"{field}.arguments", "must be a JSON object as text.")
    return ToolCall(wire.id, wire.name, wire.arguments or "{}")


def _tool_name(field: str, name: str) -> str:
    if not _TOOL_NAME.fullmatch(name):
        raise refuse(field, "must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -.")
    return name


def _tools(wire: Sequence[pb.Tool], field: str) -> tuple[Tool, ...]:
    count(field, len(wire), 0, MAX_TOOLS)
    seen: set[str] = set()
    tools: list[Tool] = []
    for index, tool in enumerate(wire):
        name = _tool_name(f"{field}[{index}].name", tool.name)
        if name in seen:
            raise refuse(f"{field}[{index}].name", "is the name of an earlier tool.")
        seen.add(name)
        parameters = tool.parameters
        tools.append(
            Tool(
                name=name,
                description=tool.description,
                parameters=(
                    json_schema(f"{field}[{index}].parameters", parameters) if parameters else None
                ),
                strict=tool.strict,
            )
        )
    return tuple(tools)


def _tool_choice(
    wire: pb.ToolChoice, tools: Sequence[Tool], field: str
) -> tuple[ToolMode, str | None]:
    mode = _MODES.get(wire.mode)
    if mode is None:
        raise refuse(f"{field}.mode", "must be a known mode.")
    if mode is ToolMode.NAMED:
        if wire.name not in {tool.name for tool in tools}:
            raise refuse(f"{field}.name", "must be the name of a tool of this request.")
        return mode, wire.name
    if wire.name:
        raise refuse(f"{field}.name", "is only for MODE_NAMED.")
    if mode is ToolMode.REQUIRED and not tools:
        raise refuse(f"{field}.mode", "requires a tool call, but no tools were given.")
    if wire.mode == pb.ToolChoice.MODE_UNSPECIFIED and not tools:
        return ToolMode.NONE, None
    return mode, None
