"""Text that leaves the engine is whole characters, without stop strings, and complete."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_llm.stopping import TextStream, held_back
from atrium_llm.tools import HERMES, LLAMA3, MISTRAL, ToolCallReader, ToolNotation, notation_of


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cuts bytes at the places, as tokens would."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 500)))
def test_text_is_whole_however_tokens_cut_it(text: str, places: list[int]) -> None:
    stream = TextStream()
    pieces = [stream.push(piece) for piece in cut(text.encode(), places)]
    assert "".join(pieces) + stream.flush() == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@given(
    st.text(alphabet="ab🌊", max_size=30),
    st.lists(st.text(alphabet="ab🌊", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 100)),
)
def test_stop_strings_never_show(text: str, stops: list[str], places: list[int]) -> None:
    stream = TextStream(stops)
    said = ""
    for piece in cut(text.encode(), places):
        said += stream.push(piece)
        if stream.stop is not None:
            break
    said += stream.flush()
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    if stream.stop is None:
        assert said == text
    else:
        assert text[len(said) :].startswith(stream.stop)


def test_half_a_character_is_flushed_as_a_replacement() -> None:
    stream = TextStream()
    assert stream.push("🌊".encode()[:2]) == ""
    assert stream.flush() == "\ufffd"


def test_a_stop_string_before_min_tokens_is_text() -> None:
    stream = TextStream(["END"])
    assert stream.push(b"xEND", may_stop=False) == "xEND"
    assert stream.push(b" END") == " "
    assert stream.stop == "END"


def test_held_back_is_the_longest_possible_start() -> None:
    assert held_back("abcab", ["abd", "cabx"]) == 3
    assert held_back("abc", ["x"]) == 0


CALL = {"name": "weather", "arguments": {"city": "Øslo"}}


def read(
    notation: ToolNotation, text: str, size: int = 1, *, parallel: bool = True
) -> tuple[str, list[tuple[str, object]]]:
    """Feeds text in small pieces; returns the text and the calls that come out."""
    reader = ToolCallReader(notation, {"weather"}, parallel=parallel)
    said, calls = "", []
    for at in range(0, max(len(text), 1), size):
        more, made = reader.push(text[at : at + size], last=at + size >= len(text))
        said += more
        calls += [(call.name, json.loads(call.arguments)) for call in made]
    return said, calls


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_hermes_calls_are_taken_out_of_the_text(size: int) -> None:
    call = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"
    said, calls = read(HERMES, f"Let me look.{call}\n{call}", size)
    assert said.strip() == "Let me look."
    assert calls == [("weather", {"city": "Øslo"})] * 2


def test_only_one_call_where_parallel_calls_are_off() -> None:
    call = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"
    assert len(read(HERMES, call + call, parallel=False)[1]) == 1


@pytest.mark.parametrize("size", [1, 1000])
def test_mistral_and_llama_calls(size: int) -> None:
    assert read(MISTRAL, f"[TOOL_CALLS]{json.dumps([CALL])}", size) == (
        "",
        [("weather", {"city": "Øslo"})],
    )
    llama = json.dumps({"name": "weather", "parameters": {"city": "Øslo"}})
    assert read(LLAMA3, llama, size) == ("", [("weather", {"city": "Øslo"})])
    assert read(LLAMA3, "Sunny, {not a call}.", size) == ("Sunny, {not a call}.", [])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnot json\n</tool_call>",
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "argu',
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    said, calls = read(HERMES, text)
    assert said == text
    assert calls == []


def test_templates_tell_their_notation() -> None:
    hermes = '{% if tools %}<tool_call>\n{"name": <n>, "arguments": <a>}</tool_call>{% endif %}'
    assert notation_of(hermes) is HERMES
    assert notation_of("{% if tools %}[TOOL_CALLS]{% endif %}") is MISTRAL
    assert notation_of("{{ messages }}") is None
