"""`POST /v1/completions`: continues text as it is, whole or in a stream."""

import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_gateway.api.chat import completion_id, shown_usage
from atrium_gateway.api.completions_schema import (
    MAX_PROMPTS,
    Completion,
    CompletionChoice,
    CompletionRequest,
    LegacyLogprobs,
)
from atrium_gateway.api.decode import decode
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.jobs import (
    Deltas,
    TextWork,
    message_interval,
    sampling,
    text_job,
    wants_usage,
)
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.text import Delta, Generation, TokenLogprob

_ENCODER = msgspec.json.Encoder()
TextJob = Job[tuple[int, Deltas]]


async def create_completion(exchange: Exchange) -> None:
    """Continues text or token ids, as OpenAI's endpoint of this name does."""
    principal = await exchange.authenticate()
    request = decode(await exchange.json_body(), CompletionRequest)
    include_usage = wants_usage(request)
    entry = exchange.gateway.resolve(request.model, Capability.COMPLETION)
    exchange.record.model = entry.id
    chosen = sampling(request, max_tokens=request.max_tokens, top_logprobs=request.logprobs)
    work = TextWork(
        capability=Capability.COMPLETION,
        entry=entry,
        generations=[
            Generation(
                model=entry.id,
                prompt=prompt,
                sampling=chosen,
                echo=bool(request.echo),
                min_interval=message_interval(request),
            )
            for prompt in prompts(request.prompt)
        ],
        tenant=principal.tenant,
        request_id=exchange.record.request_id,
    )
    job = text_job(exchange.gateway, work)
    async with exchange.until_disconnect():
        if request.stream:
            await _stream(exchange, principal, job, request, include_usage=include_usage)
        else:
            await _answer(exchange, principal, job, request)


def prompts(given: str | Sequence[str | int | Sequence[int]]) -> Sequence[str | Sequence[int]]:
    """Tells one prompt from several: text, token ids, or a list of either.

    Raises:
        InvalidArgument: A list that mixes them, or one that is too long.
    """
    if isinstance(given, str):
        return (given,)
    if all(isinstance(item, int) for item in given):
        return ([item for item in given if isinstance(item, int)],)
    several = [item for item in given if not isinstance(item, int)]
    if len({type(item) for item in several}) > 1 or len(several) < len(given):
        raise InvalidArgument("A list of prompts must not mix text and tokens.", field="prompt")
    if len(several) > MAX_PROMPTS:
        raise InvalidArgument(f"At most {MAX_PROMPTS} prompts at once.", field="prompt")
    return several


async def _answer(
    exchange: Exchange, principal: Principal, job: TextJob, request: CompletionRequest
) -> None:
    whole: dict[int, list[Delta]] = defaultdict(list)
    async with exchange.gateway.pipeline.run(
        principal, job, request_id=exchange.record.request_id
    ) as run:
        async for at, deltas in run:
            for delta in deltas:
                whole[_place(request, at, delta)].append(delta)
    answer = Completion(
        id=completion_id("cmpl", run),
        created=int(time.time()),
        model=job.model,
        choices=[_choice(place, whole[place], request) for place in sorted(whole)],
        usage=shown_usage(run.usage),
    )
    await exchange.reply(_ENCODER.encode(answer), headers=limit_headers(run.reservation.limits))


async def _stream(
    exchange: Exchange,
    principal: Principal,
    job: TextJob,
    request: CompletionRequest,
    *,
    include_usage: bool,
) -> None:
    created = int(time.time())
    offsets: dict[int, int] = defaultdict(int)
    async with EventStream(exchange) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            name = completion_id("cmpl", run)

            def piece(choices: list[CompletionChoice], *, last: bool = False) -> bytes:
                return _ENCODER.encode(
                    Completion(
                        id=name,
                        created=created,
                        model=job.model,
                        choices=choices,
                        usage=shown_usage(run.usage) if last else None,
                    )
                )

            async for at, deltas in run:
                await events.open(run.reservation.limits)
                for delta in deltas:
                    place = _place(request, at, delta)
                    choice = _choice(place, [delta], request, offset=offsets[place])
                    offsets[place] += len(delta.text)
                    await events.send(piece([choice]))
        await events.open(run.reservation.limits)
        if include_usage:
            await events.send(piece([], last=True))
        await events.close(done=True)


def _place(request: CompletionRequest, prompt: int, delta: Delta) -> int:
    return prompt * (request.n or 1) + delta.index


def _choice(
    place: int, deltas: Sequence[Delta], request: CompletionRequest, *, offset: int = 0
) -> CompletionChoice:
    tokens = [token for delta in deltas for token in delta.logprobs]
    return CompletionChoice(
        place,
        "".join(delta.text for delta in deltas),
        None if request.logprobs is None else legacy_logprobs(tokens, offset),
        deltas[-1].finish_reason,
    )


def legacy_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> LegacyLogprobs:
    """Gives log probabilities in the shape of the first completion API.

    Args:
        tokens: Tokens of the piece.
        offset: Characters of the answer before the piece.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return LegacyLogprobs(
        [token.token for token in tokens],
        [token.logprob for token in tokens],
        [{other.token: other.logprob for other in token.top} for token in tokens],
        offsets,
    )
