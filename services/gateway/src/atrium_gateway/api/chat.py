"""`POST /v1/chat/completions`: reads the request, runs it, answers whole or in a stream."""

import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from atrium_common.catalogue import ModelEntry
from atrium_common.channels import MAX_MESSAGE_BYTES
from atrium_common.domain import Capability
from atrium_common.domain import Usage as Consumed
from atrium_common.errors import InvalidArgument, TooLarge
from atrium_gateway.api import chat_convert
from atrium_gateway.api.chat_answer import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    ChunkDelta,
)
from atrium_gateway.api.chat_pictures import Place, opened, places
from atrium_gateway.api.chat_schema import ChatRequest
from atrium_gateway.api.decode import decode
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.jobs import Deltas, TextWork, text_job, wants_usage
from atrium_gateway.api.text_schema import Usage
from atrium_gateway.api.vision_chat import read_question, seeing_model, vision_job
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job, Run
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.text import Delta

MAX_BYTES = MAX_MESSAGE_BYTES - (64 << 10)
"""What a conversation of the llm service may have, for it travels as one message."""

_ENCODER = msgspec.json.Encoder()
_TEXT = "\N{SYMBOL FOR NULL}"
"""Stands for a text in an event; in no name of a model."""
TextRun = Run[tuple[int, Deltas]]
TextJob = Job[tuple[int, Deltas]]


async def create_chat_completion(exchange: Exchange) -> None:
    """Continues a conversation, as OpenAI's endpoint of this name does."""
    principal = await exchange.authenticate()
    body = await exchange.json_body()
    request = decode(body, ChatRequest)
    include_usage = wants_usage(request)
    found = places(request)
    if found:
        entry = seeing_model(exchange.gateway, request.model)
    else:
        entry = exchange.gateway.resolve(request.model, Capability.CHAT)
    exchange.record.model = entry.id
    async with exchange.until_disconnect():
        if entry.service == "img2text":
            job = await _looking(exchange, request, entry, found)
        else:
            text = len(body) - sum(len(place.image.url) for place in found)
            job = await _talking(exchange, principal, request, entry, found, text=text)
        if request.stream:
            await _stream(exchange, principal, job, request, include_usage=include_usage)
        else:
            await _answer(exchange, principal, job, request)


async def _talking(
    exchange: Exchange,
    principal: Principal,
    request: ChatRequest,
    entry: ModelEntry,
    found: Sequence[Place],
    *,
    text: int,
) -> TextJob:
    """Makes the job of the llm service; `text` is the size of what is no picture, in bytes."""
    if text > MAX_BYTES:
        raise TooLarge(f"A conversation has at most {MAX_BYTES} bytes.", field="messages")
    pictures = await opened(exchange.gateway, found, limit=MAX_BYTES - text) if found else {}
    work = TextWork(
        capability=Capability.CHAT,
        entry=entry,
        generations=(chat_convert.generation(request, model=entry.id, pictures=pictures),),
        tenant=principal.tenant,
        request_id=exchange.record.request_id,
    )
    return text_job(exchange.gateway, work)


async def _looking(
    exchange: Exchange, request: ChatRequest, entry: ModelEntry, found: Sequence[Place]
) -> TextJob:
    """Makes the job of the img2text service."""
    if len(found) > 1:
        raise InvalidArgument(
            f"The model {entry.id!r} sees one picture in a conversation.", field=found[1].field
        )
    asked = read_question(request, entry)
    gateway = exchange.gateway
    (picture,) = (await opened(gateway, found, limit=gateway.max_picture_bytes)).values()
    return vision_job(gateway, entry, asked, found[0], picture)


async def _answer(
    exchange: Exchange, principal: Principal, job: TextJob, request: ChatRequest
) -> None:
    whole: dict[int, list[Delta]] = defaultdict(list)
    async with exchange.gateway.pipeline.run(
        principal, job, request_id=exchange.record.request_id
    ) as run:
        async for _, deltas in run:
            for delta in deltas:
                whole[delta.index].append(delta)
    answer = ChatCompletion(
        id=completion_id("chatcmpl", run),
        created=int(time.time()),
        model=job.model,
        choices=[_choice(at, whole[at], request) for at in sorted(whole)],
        usage=shown_usage(run.usage),
    )
    await exchange.reply(_ENCODER.encode(answer), headers=limit_headers(run.reservation.limits))


def _choice(index: int, deltas: list[Delta], request: ChatRequest) -> Choice:
    calls = [call for delta in deltas for call in delta.tool_calls]
    content = "".join(delta.text for delta in deltas)
    tokens = [token for delta in deltas for token in delta.logprobs]
    return Choice(
        index,
        AnswerMessage(content or (None if calls else ""), chat_convert.tool_calls(calls)),
        chat_convert.logprobs(tokens, wanted=bool(request.logprobs)),
        deltas[-1].finish_reason or "stop",
    )


async def _stream(
    exchange: Exchange,
    principal: Principal,
    job: TextJob,
    request: ChatRequest,
    *,
    include_usage: bool,
) -> None:
    async with EventStream(exchange) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            chunks = _Chunks(run, job.model, request, include_usage=include_usage)
            async for _, deltas in run:
                if not events.opened:
                    await events.open(run.reservation.limits)
                for delta in deltas:
                    for chunk in chunks.of(delta):
                        await events.send(chunk)
        await events.open(run.reservation.limits)
        if include_usage:
            await events.send(chunks.last(run.usage))
        await events.close(done=True)


class _Chunks:
    """Makes the events of one streamed answer."""

    def __init__(
        self, run: TextRun, model: str, request: ChatRequest, *, include_usage: bool
    ) -> None:
        self._id = completion_id("chatcmpl", run)
        self._created = int(time.time())
        self._model = model
        self._logprobs = bool(request.logprobs)
        self._usage = None if include_usage else msgspec.UNSET
        self._calls: dict[int, int] = {}
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def of(self, delta: Delta) -> Sequence[bytes]:
        """Gives the events of a delta; a choice's first one names the role."""
        around = self._around.get(delta.index)
        more = delta.finish_reason or delta.tool_calls or delta.logprobs
        if around and delta.text and not more:
            return (around[0] + _ENCODER.encode(delta.text) + around[1],)
        chunks = []
        if delta.index not in self._calls:
            self._calls[delta.index] = 0
            # Events that tell nothing but text are alike around it: that is encoded once.
            plain = self._chunk(delta.index, ChunkDelta(content=_TEXT))
            before, _, after = plain.rpartition(_ENCODER.encode(_TEXT))
            self._around[delta.index] = before, after
            chunks.append(self._chunk(delta.index, ChunkDelta("assistant", "", refusal=None)))
        made = self._calls[delta.index]
        self._calls[delta.index] += len(delta.tool_calls)
        content = delta.text or msgspec.UNSET
        new = ChunkDelta(
            content=content, tool_calls=chat_convert.tool_calls(delta.tool_calls, first_index=made)
        )
        chunks.append(self._chunk(delta.index, new, delta))
        return chunks

    def last(self, usage: Consumed) -> bytes:
        """Gives the event that tells the usage."""
        return _ENCODER.encode(
            ChatChunk(
                id=self._id,
                created=self._created,
                model=self._model,
                choices=[],
                usage=shown_usage(usage),
            )
        )

    def _chunk(self, index: int, new: ChunkDelta, delta: Delta | None = None) -> bytes:
        tokens = delta.logprobs if delta else ()
        choice = ChunkChoice(
            index,
            new,
            chat_convert.logprobs(tokens, wanted=self._logprobs and bool(tokens)),
            delta.finish_reason if delta else None,
        )
        return _ENCODER.encode(
            ChatChunk(
                id=self._id,
                created=self._created,
                model=self._model,
                choices=[choice],
                usage=self._usage,
            )
        )


def completion_id(prefix: str, run: TextRun) -> str:
    """Names an answer after its reservation, which is its row in the ledger."""
    return f"{prefix}-{run.reservation.id.replace('-', '')}"


def shown_usage(usage: Consumed) -> Usage:
    """Gives usage under OpenAI's names."""
    return Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details={"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
    )
