"""What the fake engine says: planned before the first step, so that a step is cheap."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atrium_llm.domain import (
    ChatInput,
    FinishReason,
    GenerationJob,
    JsonObject,
    JsonSchema,
    PromptInput,
    TextInput,
    TextPart,
    TokenInput,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolMode,
)
from atrium_llm.engines.json_instances import minimal_instance

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy"),
    *("dog", "while", "seven", "wise", "owls", "watch", "in", "silence"),
)
"""A reply repeats these; the token id of a word is its index here."""

IMAGE_TOKENS = 64
"""What every image counts, for the models whose entries say that they see."""
_PIECE = 4
"""Characters of JSON that count as one token."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One choice, decided.

    Attributes:
        pieces: Text of each token that is generated, in order.
        visible: Characters of the text that the caller gets; a stop string and what
            follows it are cut.
        tool_calls: Calls to hand over with the finish reason; their tokens are in
            `pieces` and not visible.
        finish_reason: Why it ends after the last piece.
        stop: The stop string that was met.
    """

    pieces: Sequence[str]
    visible: int
    finish_reason: FinishReason
    tool_calls: Sequence[ToolCall] = ()
    stop: str | None = None


def prompt_tokens(prompt: PromptInput) -> int:
    """Counts a prompt: one token for a word, message or tool, `IMAGE_TOKENS` for an image."""
    if isinstance(prompt, TokenInput):
        return len(prompt.ids)
    if isinstance(prompt, TextInput):
        return max(1, len(prompt.text.split()))
    return len(prompt.tools) + sum(
        1
        + sum(
            len(part.text.split()) if isinstance(part, TextPart) else IMAGE_TOKENS
            for part in message.content
        )
        for message in prompt.messages
    )


def echoed(prompt: PromptInput) -> str:
    """Returns the text of a prompt that is to be echoed."""
    if isinstance(prompt, TextInput):
        return prompt.text
    if isinstance(prompt, TokenInput):
        return " ".join(WORDS[token % len(WORDS)] for token in prompt.ids)
    return ""


def plan(job: GenerationJob, index: int, *, reply_tokens: int, room: int) -> Plan:
    """Decides choice `index` of a job.

    Args:
        job: What is asked for.
        index: Which choice, from 0.
        reply_tokens: Length of a reply that nothing cuts.
        room: Most tokens that fit behind the prompt.

    Raises:
        InvalidArgument: A schema that the fake can't satisfy.
    """
    sampling = job.sampling
    most = min(sampling.max_tokens or room, room)
    calls = _tool_calls(job.input, index)
    if calls:
        pieces = [piece for call in calls for piece in _cut(call.arguments)]
        if len(pieces) > most:
            return Plan(pieces[:most], 0, FinishReason.LENGTH)
        return Plan(pieces, 0, FinishReason.TOOL_CALLS, calls)
    if job.response_format is None:
        wanted = min(max(reply_tokens, sampling.min_tokens), most + 1)
        pieces = _words(wanted, (sampling.seed or 0) + index, sampling.logit_bias)
    else:
        pieces = _cut(_json(job.response_format))
    reason = FinishReason.STOP if len(pieces) <= most else FinishReason.LENGTH
    return _stopped(pieces[:most], sampling.stop, reason)


def _words(count: int, offset: int, bias: Mapping[int, float]) -> list[str]:
    start = offset % len(WORDS)
    allowed = [
        WORDS[token]
        for token in (*range(start, len(WORDS)), *range(start))
        if bias.get(token, 0.0) > -100
    ]
    if not allowed:
        return []
    words = list(itertools.islice(itertools.cycle(allowed), count))
    return [words[0], *(f" {word}" for word in words[1:])] if words else []


def _cut(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _json(wanted: JsonObject | JsonSchema) -> str:
    if isinstance(wanted, JsonObject):
        return '{"answer": "fake"}'
    return json.dumps(minimal_instance(wanted.schema, field="job.response_format.json_schema"))


def _tool_calls(prompt: PromptInput, index: int) -> tuple[ToolCall, ...]:
    if not isinstance(prompt, ChatInput):
        return ()
    tools: Sequence[Tool] = ()
    if prompt.tool_mode is ToolMode.REQUIRED:
        tools = prompt.tools[:1]
    elif prompt.tool_mode is ToolMode.NAMED:
        tools = [tool for tool in prompt.tools if tool.name == prompt.tool_name]
    return tuple(
        ToolCall(
            id=f"call_{index}_{place}",
            name=tool.name,
            arguments=json.dumps(
                minimal_instance(tool.parameters or {"type": "object"}, field="job.chat.tools")
            ),
        )
        for place, tool in enumerate(tools)
    )


def _stopped(pieces: Sequence[str], stops: Sequence[str], reason: FinishReason) -> Plan:
    if not stops:
        return Plan(pieces, sum(map(len, pieces)), reason)
    text = "".join(pieces)
    # The one that is complete first ends the text, as in an engine that reads along.
    met = min(
        ((place + len(stop), place, stop) for stop in stops if (place := text.find(stop)) >= 0),
        default=None,
    )
    if met is None:
        return Plan(pieces, len(text), reason)
    end, place, stop = met
    ends = itertools.accumulate(map(len, pieces))
    used = next(count for count, length in enumerate(ends, 1) if length >= end)
    return Plan(pieces[:used], place, FinishReason.STOP, stop=stop)


def logprobs(pieces: Sequence[str], top: int) -> tuple[TokenLogprob, ...]:
    """Makes log probabilities of the right shape: the chosen token has half the mass."""

    def entry(token: int, text: str, rank: int, *, alternatives: int) -> TokenLogprob:
        return TokenLogprob(
            token_id=token,
            token=text,
            token_bytes=text.encode(),
            logprob=-math.log(2) * rank,
            top=tuple(
                entry(
                    (token + step) % len(WORDS),
                    text if step == 0 else f" {WORDS[(token + step) % len(WORDS)]}",
                    step + 1,
                    alternatives=0,
                )
                for step in range(alternatives)
            ),
        )

    return tuple(entry(_token_id(piece), piece, 1, alternatives=top) for piece in pieces)


def _token_id(piece: str) -> int:
    word = piece.strip()
    return WORDS.index(word) if word in WORDS else len(WORDS) + sum(piece.encode())
