"""Tool calls inside a model's text: which notation a model uses, and how to read it.

A model writes its calls in the notation of its chat template. Engines that decode
themselves put a `ToolCallReader` behind each choice that may call tools.
"""

import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

from atrium_llm.domain import ToolCall
from atrium_llm.stopping import held_back


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolNotation:
    """How a family of models writes tool calls.

    Attributes:
        opening: Text before a call; ``""`` if the answer itself is the call.
        closing: Text after it; ``""`` if a call goes on to the end.
        arguments_key: Key of the arguments in the call's JSON object.
        array: True if the calls stand in one JSON array.
        marker: Special token that must stay visible to be read, or ``""``.
    """

    opening: str
    closing: str
    arguments_key: str
    array: bool = False
    marker: str = ""


HERMES = ToolNotation(opening="<tool_call>\n", closing="\n</tool_call>", arguments_key="arguments")
MISTRAL = ToolNotation(
    opening="[TOOL_CALLS]", closing="", arguments_key="arguments", array=True, marker="[TOOL_CALLS]"
)
LLAMA3 = ToolNotation(opening="", closing="", arguments_key="parameters")


def notation_of(template: str) -> ToolNotation | None:
    """Tells the notation that a chat template teaches, or ``None`` if it knows no tools."""
    if "tools" not in template:
        return None
    if "<tool_call>" in template and '"arguments"' in template.replace("\\", ""):
        return HERMES
    if "[TOOL_CALLS]" in template and "[ARGS]" not in template:
        return MISTRAL
    if "<|python_tag|>" in template or '{"name": function name, "parameters"' in template:
        return LLAMA3
    return None


def new_call_id() -> str:
    """Makes the id of a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"


class ToolCallReader:
    """Takes tool calls out of the text of one choice as it grows.

    What looks like a call and is none (no JSON, an unknown name) stays text, so that
    nothing that the model said is lost.
    """

    def __init__(
        self,
        notation: ToolNotation,
        names: Collection[str],
        *,
        parallel: bool = True,
        make_id: Callable[[], str] = new_call_id,
    ) -> None:
        """Takes the notation and the tools that may be called.

        Args:
            notation: How the model writes calls.
            names: Names of the tools on offer.
            parallel: False ends the choice after its first call.
            make_id: Makes the id of a call.
        """
        self._notation = notation
        self._names = frozenset(names)
        self._parallel = parallel
        self._make_id = make_id
        self._buffer = ""
        self._inside = False
        self._begun = False
        self._calls = 0

    @property
    def called(self) -> bool:
        """True once a call was read."""
        return self._calls > 0

    @property
    def complete(self) -> bool:
        """True when no further call is wanted."""
        return self.called and not self._parallel

    def push(self, text: str, *, last: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """Adds text; returns the text that is none of a call, and the calls that are complete.

        Args:
            text: What is new.
            last: True if nothing follows.
        """
        self._buffer += text
        if not self._notation.opening:
            return self._read_whole(last)
        out: list[str] = []
        calls: list[ToolCall] = []
        while self._read_one(out, calls, last):
            pass
        return "".join(out), tuple(calls)

    def _read_one(self, out: list[str], calls: list[ToolCall], last: bool) -> bool:
        """Moves over one marker; False when the buffer holds none that is complete."""
        opening, closing = self._notation.opening.strip(), self._notation.closing.strip()
        if not self._inside:
            before, found, after = self._buffer.partition(opening)
            if not found:
                keep = 0 if last else held_back(self._buffer, (opening,))
                cut = len(self._buffer) - keep
                text, self._buffer = self._buffer[:cut], self._buffer[cut:]
                out.append("" if self.called and not text.strip() else text)
                return False
            out.append(before if before.strip() else "")
            self._buffer, self._inside = after, True
            return True
        body, found, after = self._buffer.partition(closing) if closing else (self._buffer, "", "")
        if not found and not last:
            return False
        read = self._parse(body)
        calls += read
        if not read:
            out.append(opening + body + found)
        self._buffer, self._inside = after, False
        return bool(found)

    def _read_whole(self, last: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """The answer is a call if it begins like one; that shows at its first character."""
        start = self._buffer.lstrip().removeprefix("<|python_tag|>").lstrip()
        if not self._begun and start and not start.startswith("{"):
            self._begun = True
        if self._begun or (last and not start):
            text, self._buffer = self._buffer, ""
            return text, ()
        if not last:
            return "", ()
        calls = self._parse(start)
        text, self._buffer = self._buffer, ""
        return ("" if calls else text), calls

    def _parse(self, body: str) -> tuple[ToolCall, ...]:
        try:
            parsed: object = json.loads(body)
        except ValueError:
            return ()
        items = parsed if isinstance(parsed, list) else [parsed]
        calls = [call for item in items if (call := self._call(item)) is not None]
        if len(calls) != len(items):
            return ()
        wanted = calls if self._parallel else calls[: max(1 - self._calls, 0)]
        self._calls += len(wanted)
        return tuple(wanted)

    def _call(self, item: object) -> ToolCall | None:
        if not isinstance(item, dict) or item.get("name") not in self._names:
            return None
        arguments = item.get(self._notation.arguments_key, item.get("arguments", {}))
        if not isinstance(arguments, dict):
            return None
        text = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(id=self._make_id(), name=str(item["name"]), arguments=text)
