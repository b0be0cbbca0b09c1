"""The grammar of an answer that is nothing but tool calls, in llguidance's Lark.

Text alone, so that every engine that can enforce such a grammar shares it:
`structured.py` compiles it for the engines that sample themselves, vLLM takes it as it is.
"""

import json
from collections.abc import Mapping, Sequence

from atrium_llm.domain import ChatInput, Tool, ToolMode
from atrium_llm.tools import ToolNotation

ONE_LINE: Mapping[str, object] = {
    "whitespace_flexible": False,
    "key_separator": ": ",
    "item_separator": ", ",
}
"""JSON on one line: where spaces and line breaks are free, small models never end them."""

_NO_ARGUMENTS: Mapping[str, object] = {"type": "object", "additionalProperties": False}
_REMARKS = frozenset({"$schema", "title", "description"})


def must_call(chat: ChatInput) -> bool:
    """True if the answer must be a tool call."""
    return chat.tool_mode in (ToolMode.REQUIRED, ToolMode.NAMED)


def tool_calls_grammar(chat: ChatInput, notation: ToolNotation) -> str:
    """Writes the grammar of the calls that a conversation asks for.

    Args:
        chat: A conversation that must be answered by calls; a named tool is called
            once, others as often as the conversation allows.
        notation: How the model writes calls.
    """
    tools = [tool for tool in chat.tools if chat.tool_name in (None, tool.name)]
    many = chat.parallel_tool_calls and chat.tool_mode is ToolMode.REQUIRED
    schema = _calls_schema(tools, notation, many=many)
    parts = (
        _literal(notation.opening),
        f"%json {json.dumps({**schema, 'x-guidance': ONE_LINE})}",
        _literal(notation.closing),
    )
    repeat = "call+" if many and notation.closing and not notation.array else "call"
    return f"start: {repeat}\ncall: {' '.join(part for part in parts if part)}\n"


def _calls_schema(
    tools: Sequence[Tool], notation: ToolNotation, *, many: bool
) -> Mapping[str, object]:
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                notation.arguments_key: dict(_arguments(tool.parameters)),
            },
            "required": ["name", notation.arguments_key],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema: dict[str, object] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    if not notation.array:
        return schema
    most = {} if many else {"maxItems": 1}
    return {"type": "array", "items": schema, "minItems": 1, **most}


def _arguments(parameters: Mapping[str, object] | None) -> Mapping[str, object]:
    """Closes a schema that names no argument: JSON Schema lets it take any.

    Callers mean "none" by it, and a small model never ends a list of free properties.
    """
    said = {key: value for key, value in (parameters or {}).items() if key not in _REMARKS}
    if said in ({}, {"type": "object"}, {"type": "object", "properties": {}}):
        return _NO_ARGUMENTS
    return parameters or _NO_ARGUMENTS


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""
