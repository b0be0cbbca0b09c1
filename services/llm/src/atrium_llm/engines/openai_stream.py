"""Chunks of an OpenAI-compatible server as deltas; `engines/openai.py` reads with these.

The client library builds its types without checking them, so everything here takes a
field that is missing or null for one that says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from openai.types import Completion, CompletionUsage
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall, ChoiceLogprobs
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_choice import Logprobs

from atrium_llm.domain import ChoiceDelta, FinishReason, TokenLogprob, ToolCall

UNKNOWN_TOKEN = -1
"""Providers tell a token's text and bytes, not its id."""

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


@dataclass(slots=True)
class _PendingCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def whole(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments) or "{}")


@dataclass(slots=True)
class _Choice:
    calls: dict[int, _PendingCall] = field(default_factory=dict)
    finished: bool = False


class StreamReader:
    """Reads the chunks of one answer, in order.

    Attributes:
        usage: What the provider counted; ``None`` until it says so.
        written: UTF-8 bytes of text and arguments so far, over all choices.
    """

    def __init__(self) -> None:
        self.usage: CompletionUsage | None = None
        self.written = 0
        self._choices: dict[int, _Choice] = {}

    @property
    def complete(self) -> bool:
        """True once every choice that was begun has a finish reason."""
        return bool(self._choices) and all(one.finished for one in self._choices.values())

    def read_chat(self, chunk: ChatCompletionChunk) -> list[ChoiceDelta]:
        """Takes a chunk of a chat completion and returns what is new in it."""
        self.usage = chunk.usage or self.usage
        deltas: list[ChoiceDelta] = []
        for choice in chunk.choices or ():
            state = self._choices.setdefault(choice.index or 0, _Choice())
            # A refusal is what the model says instead of content.
            text = (choice.delta.content or choice.delta.refusal or "") if choice.delta else ""
            for fragment in (choice.delta.tool_calls if choice.delta else None) or ():
                self._take_call(state, fragment)
            calls = self._finish(state, choice.finish_reason)
            delta = ChoiceDelta(
                index=choice.index or 0,
                text=text,
                tool_calls=calls,
                logprobs=_chat_logprobs(choice.logprobs),
                finish_reason=_reason(choice.finish_reason),
            )
            self.written += len(text.encode("utf-8", "replace"))
            if delta.text or delta.finish_reason or delta.logprobs:
                deltas.append(delta)
        return deltas

    def read_completion(self, chunk: Completion) -> list[ChoiceDelta]:
        """Takes a chunk of a text completion and returns what is new in it."""
        self.usage = chunk.usage or self.usage
        deltas: list[ChoiceDelta] = []
        for choice in chunk.choices or ():
            state = self._choices.setdefault(choice.index or 0, _Choice())
            self._finish(state, choice.finish_reason)
            delta = ChoiceDelta(
                index=choice.index or 0,
                text=choice.text or "",
                logprobs=_completion_logprobs(choice.logprobs),
                finish_reason=_reason(choice.finish_reason),
            )
            self.written += len(delta.text.encode("utf-8", "replace"))
            if delta.text or delta.finish_reason or delta.logprobs:
                deltas.append(delta)
        return deltas

    def _take_call(self, state: _Choice, fragment: ChoiceDeltaToolCall) -> None:
        call = state.calls.setdefault(fragment.index or 0, _PendingCall())
        call.id = fragment.id or call.id
        if fragment.function is not None:
            call.name += fragment.function.name or ""
            arguments = fragment.function.arguments or ""
            call.arguments.append(arguments)
            self.written += len(arguments.encode("utf-8", "replace"))

    @staticmethod
    def _finish(state: _Choice, reason: str | None) -> tuple[ToolCall, ...]:
        """Ends a choice if there is a reason; its tool calls are whole only then."""
        if reason is None:
            return ()
        state.finished = True
        calls = tuple(state.calls[index].whole() for index in sorted(state.calls))
        state.calls.clear()
        return calls


def _reason(reason: str | None) -> FinishReason | None:
    # A reason that this version does not know still ends the choice.
    return None if reason is None else _REASONS.get(reason, FinishReason.STOP)


def _chat_logprobs(wire: ChoiceLogprobs | None) -> tuple[TokenLogprob, ...]:
    if wire is None:
        return ()
    return tuple(
        TokenLogprob(
            token_id=UNKNOWN_TOKEN,
            token=item.token,
            token_bytes=_bytes(item.bytes, item.token),
            logprob=item.logprob,
            top=tuple(_top(other) for other in item.top_logprobs or ()),
        )
        for item in wire.content or wire.refusal or ()
    )


def _top(item: TopLogprob) -> TokenLogprob:
    return TokenLogprob(
        token_id=UNKNOWN_TOKEN,
        token=item.token,
        token_bytes=_bytes(item.bytes, item.token),
        logprob=item.logprob,
    )


def _bytes(values: list[int] | None, token: str) -> bytes:
    return token.encode("utf-8", "replace") if values is None else bytes(values)


def _completion_logprobs(wire: Logprobs | None) -> tuple[TokenLogprob, ...]:
    if wire is None or not wire.tokens:
        return ()
    # The first token of an echoed prompt has no probability.
    values = wire.token_logprobs or [0.0] * len(wire.tokens)
    tops: list[dict[str, float]] = wire.top_logprobs or [{} for _ in wire.tokens]
    return tuple(
        _legacy(token, value or 0.0, top or {})
        for token, value, top in zip(wire.tokens, values, tops, strict=False)
    )


def _legacy(token: str, value: float, top: Mapping[str, float]) -> TokenLogprob:
    ranked = sorted(top.items(), key=lambda item: -item[1])
    return TokenLogprob(
        token_id=UNKNOWN_TOKEN,
        token=token,
        token_bytes=token.encode("utf-8", "replace"),
        logprob=value,
        top=tuple(_legacy(other, number, {}) for other, number in ranked),
    )
