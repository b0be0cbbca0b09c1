"""What the grammar of tool calls lets a model write; checked byte by byte."""

import json
from collections.abc import Mapping

import pytest
from llguidance import LLMatcher, LLTokenizer

from atrium_llm.domain import ChatInput, ChatMessage, Role, TextPart, Tool, ToolMode
from atrium_llm.tool_grammar import tool_calls_grammar
from atrium_llm.tools import HERMES, LLAMA3, MISTRAL, ToolNotation

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**CITY, "additionalProperties": False}


def conversation(*tools: Tool, named: str | None = None, parallel: bool = True) -> ChatInput:
    """A conversation that must be answered by calls."""
    return ChatInput(
        messages=(ChatMessage(role=Role.USER, content=(TextPart("hi"),)),),
        tools=tools,
        tool_mode=ToolMode.NAMED if named else ToolMode.REQUIRED,
        tool_name=named,
        parallel_tool_calls=parallel,
    )


def written(notation: ToolNotation, *calls: tuple[str, object]) -> str:
    """Writes calls as a model of that notation does."""
    texts = [json.dumps({"name": name, notation.arguments_key: given}) for name, given in calls]
    if notation.array:
        return f"{notation.opening}[{', '.join(texts)}]{notation.closing}"
    return "".join(f"{notation.opening}{text}{notation.closing}" for text in texts)


def allows(chat: ChatInput, notation: ToolNotation, text: str) -> bool:
    """True if the grammar lets a model write all of the text and end there."""
    grammar = LLMatcher.grammar_from_lark(tool_calls_grammar(chat, notation))
    matcher = LLMatcher(LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    wanted = list(text.encode())
    return matcher.try_consume_tokens(wanted) == len(wanted) and matcher.is_accepting()


@pytest.mark.parametrize("notation", [HERMES, MISTRAL, LLAMA3])
@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"$schema": "x", "title": "t", "type": "object", "properties": {}},
    ],
)
def test_a_tool_without_parameters_takes_no_arguments(
    notation: ToolNotation, parameters: Mapping[str, object] | None
) -> None:
    chat = conversation(Tool(name="now", parameters=parameters))
    assert allows(chat, notation, written(notation, ("now", {})))
    assert not allows(chat, notation, written(notation, ("now", {"zone": "UTC"})))


def test_a_schema_that_says_so_takes_free_arguments() -> None:
    free = {"type": "object", "additionalProperties": {"type": "integer"}}
    chat = conversation(Tool(name="set", parameters=free))
    assert allows(chat, HERMES, written(HERMES, ("set", {"a": 1, "b": 2})))
    assert not allows(chat, HERMES, written(HERMES, ("set", {"a": "one"})))


@pytest.mark.parametrize("notation", [HERMES, MISTRAL, LLAMA3])
def test_calls_follow_their_own_tool_only(notation: ToolNotation) -> None:
    chat = conversation(Tool(name="weather", parameters=CLOSED), Tool(name="now"))
    assert allows(chat, notation, written(notation, ("weather", {"city": "Paris"})))
    assert not allows(chat, notation, written(notation, ("weather", {})))
    assert not allows(chat, notation, written(notation, ("now", {"city": "Paris"})))
    assert not allows(chat, notation, written(notation, ("other", {})))


@pytest.mark.parametrize("notation", [HERMES, MISTRAL])
def test_several_calls_only_where_they_are_allowed(notation: ToolNotation) -> None:
    tools = (Tool(name="now"), Tool(name="later"))
    two = written(notation, ("now", {}), ("later", {}))
    twice = written(notation, ("now", {}), ("now", {}))
    assert allows(conversation(*tools), notation, two)
    assert not allows(conversation(*tools, parallel=False), notation, two)
    assert not allows(conversation(*tools, named="now"), notation, twice)
    assert allows(conversation(*tools, named="now"), notation, written(notation, ("now", {})))
    assert not allows(conversation(*tools, named="now"), notation, written(notation, ("later", {})))


def test_calls_stay_on_one_line() -> None:
    chat = conversation(Tool(name="now"))
    assert not allows(chat, LLAMA3, '{"name": "now",\n"parameters": {}}')
