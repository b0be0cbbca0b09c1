"""A conversation about a picture as one question to the img2text service; `chat.py` asks here.

The last message is the question, what was said before it the history, instructions are the
operator's. What that service has no word for is refused by name.
"""

import io
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.api import chat_schema as schema
from atrium_gateway.api.chat_convert import max_tokens
from atrium_gateway.api.chat_pictures import Place
from atrium_gateway.api.jobs import Deltas
from atrium_gateway.api.seeing_bounds import vision_bound
from atrium_gateway.api.seeing_names import Names
from atrium_gateway.deps import Gateway
from atrium_gateway.pipeline import Job
from atrium_gateway.upstreams.img2text import ANSWER
from atrium_gateway.upstreams.port import Caller, UpstreamCall
from atrium_gateway.upstreams.seeing import AnswerPiece, Question, QuestionTurn, TextSampling
from atrium_gateway.upstreams.text import Delta

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "stop": ([],),
    "logprobs": (False,),
    "top_logprobs": (),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "top_k": (),
    "min_p": (0,),
    "min_tokens": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (),
    "response_format": (schema.TextFormat(),),
}
"""What AnswerQuestion has no word for, and the values that ask for nothing."""


def seeing_model(gateway: Gateway, name: str) -> ModelEntry:
    """Finds the model that a conversation with pictures means; ``""`` takes the first.

    Raises:
        InvalidArgument: It is a chat model that sees nothing; the message names those that do.
        NotFound: There is no such model.
    """
    try:
        return gateway.resolve(name, Capability.IMAGE_TO_TEXT)
    except NotFound:
        entry = gateway.resolve(name, Capability.CHAT)
        able = [one.id for one in gateway.catalogue.with_capability(Capability.IMAGE_TO_TEXT)]
        others = f"these do: {', '.join(able)}" if able else "no model of this suite does"
        raise InvalidArgument(
            f"The model {entry.id!r} does not see pictures; {others}.", field="model"
        ) from None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a conversation asks about its picture.

    Attributes:
        question: For the service.
        names: What the service may refuse, as the request named it.
    """

    question: Question
    names: Mapping[str, str]


def read_question(request: schema.ChatRequest, entry: ModelEntry) -> Asked:
    """Reads a conversation as a question.

    Raises:
        InvalidArgument: A parameter or message can't be honoured; `field` names it.
    """
    for name, neutral in _NEUTRAL.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            raise InvalidArgument(
                f"The model {entry.id!r} has no '{name}': leave it out.", field=name
            )
    talk = _talk(request.messages)
    question = Question(
        model=entry.id,
        question=talk.asked.text,
        history=[QuestionTurn(question=q.text, answer=a.text) for q, a in talk.turns],
        instructions="\n\n".join(said.text for said in talk.instructions),
        sampling=_sampling(request),
    )
    return Asked(question, _names(request, talk))


def vision_job(
    gateway: Gateway, entry: ModelEntry, asked: Asked, place: Place, picture: bytes
) -> Job[tuple[int, Deltas]]:
    """Makes the job that answers the question about the picture that stands in `place`."""
    names = Names(place.field, asked.names)

    def call(caller: Caller) -> UpstreamCall[tuple[int, Deltas]]:
        answer = gateway.img2text.answer(asked.question, io.BytesIO(picture), caller)
        return _AnswerCall(answer, names)

    return Job(
        capability=Capability.IMAGE_TO_TEXT,
        model=entry.id,
        method=ANSWER,
        estimate=vision_bound(entry, None, [asked.question]),
        call=call,
    )


class _AnswerCall:
    """An answer's pieces as the deltas of a chat's one choice, errors under its names."""

    def __init__(self, call: UpstreamCall[AnswerPiece], names: Names) -> None:
        self._call = call
        self._names = names

    @property
    def usage(self) -> Usage | None:
        """The last cumulative usage received."""
        return self._call.usage

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """Empty: one model answers."""
        return self._call.usage_by_model

    def __aiter__(self) -> AsyncIterator[tuple[int, Deltas]]:
        return self

    async def __anext__(self) -> tuple[int, Deltas]:
        """Waits for the next piece; raises errors of the tree."""
        with self._names.applied():
            piece = await anext(self._call)
        if not piece.text and piece.finish_reason is None:
            return 0, ()
        return 0, [Delta(0, piece.text, piece.finish_reason)]

    def cancel(self) -> None:
        """Ends the call."""
        self._call.cancel()

    def inquiry(self) -> Coroutine[object, object, None] | None:
        """What the answer's call has to ask."""
        return self._call.inquiry()


@dataclass(frozen=True, slots=True)
class _Said:
    """What somebody said in one go: the first message's index, and the texts of all."""

    at: int
    text: str


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation in the service's terms."""

    instructions: Sequence[_Said]
    turns: Sequence[tuple[_Said, _Said]]
    asked: _Said


def _talk(messages: Sequence[schema.Message]) -> _Talk:
    """Divides a conversation; messages of one speaker that follow each other are one."""
    instructions: list[_Said] = []
    said: list[tuple[str, _Said]] = []
    for at, message in enumerate(messages):
        role, text = _read(message, at)
        if role == "system":
            instructions.append(_Said(at, text))
        elif said and said[-1][0] == role:
            before = said[-1][1]
            said[-1] = role, _Said(before.at, "\n".join(filter(None, (before.text, text))))
        else:
            said.append((role, _Said(at, text)))
    for number, (role, part) in enumerate(said):
        if role != ("user", "assistant")[number % 2]:
            raise InvalidArgument(
                "An answer needs a question before it.", field=f"messages[{part.at}].role"
            )
        if not part.text.strip():
            raise InvalidArgument(
                "Say in text what there is to find out about the picture.",
                field=f"messages[{part.at}].content",
            )
    if len(said) % 2 == 0:
        raise InvalidArgument(
            "The last message must be the user's.", field=f"messages[{len(messages) - 1}].role"
        )
    parts = [part for _, part in said]
    return _Talk(instructions, list(zip(parts[:-1:2], parts[1::2], strict=True)), parts[-1])


def _read(message: schema.Message, at: int) -> tuple[str, str]:
    """Gives a message's role and text."""
    if isinstance(message, schema.ToolMessage):
        raise InvalidArgument("This model calls no tools.", field=f"messages[{at}].role")
    if isinstance(message, schema.AssistantMessage) and message.tool_calls:
        raise InvalidArgument("This model calls no tools.", field=f"messages[{at}].tool_calls")
    if message.name:
        raise InvalidArgument(
            "This model knows no names of speakers.", field=f"messages[{at}].name"
        )
    content = message.content or ""
    if not isinstance(content, str):
        texts = [part.text for part in content if isinstance(part, schema.TextPart)]
        content = "\n".join(texts)
    if isinstance(message, schema.UserMessage):
        return "user", content
    return "assistant" if isinstance(message, schema.AssistantMessage) else "system", content


def _sampling(request: schema.ChatRequest) -> TextSampling:
    return TextSampling(
        max_tokens=max_tokens(request),
        temperature=request.temperature,
        # 1 cuts nothing off; anything less needs a temperature, which the service checks.
        top_p=None if request.top_p == 1 else request.top_p,
        seed=request.seed,
        repetition_penalty=request.repetition_penalty,
    )


def _names(request: schema.ChatRequest, talk: _Talk) -> dict[str, str]:
    """Names what the service may refuse as this request named it."""
    names = {"history": "messages", "question": f"messages[{talk.asked.at}].content"}
    if talk.instructions:
        names["instructions"] = f"messages[{talk.instructions[0].at}].content"
    for number, (question, answer) in enumerate(talk.turns):
        names[f"history[{number}].question"] = f"messages[{question.at}].content"
        names[f"history[{number}].answer"] = f"messages[{answer.at}].content"
    if request.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    return names
