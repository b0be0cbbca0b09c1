"""Text generations as jobs for the pipeline; made for chat and completions alike."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument
from atrium_gateway.api.bounds import answer_bound, prompt_bound
from atrium_gateway.api.text_schema import Input
from atrium_gateway.deps import Gateway
from atrium_gateway.pipeline import Job
from atrium_gateway.upstreams.chain import ChainedCalls
from atrium_gateway.upstreams.llm import GENERATE, GENERATE_WHOLE
from atrium_gateway.upstreams.port import Caller, UpstreamCall
from atrium_gateway.upstreams.text import Delta, Generation, Sampling

WHOLE_ANSWER_INTERVAL = 0.02
"""Seconds between the messages of an answer that is given whole and is too large for one."""
_MESSAGE_BYTES = 4_000_000
"""Room of one message, less what stands around the answer."""
_TOKEN_BYTES = 64
"""Bytes of a token's text that are allowed for: several times what languages need."""
_LOGPROB_BYTES = 2 * _TOKEN_BYTES
"""The same of a token with its probability: as text, and as bytes."""

Deltas = Sequence[Delta]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWork:
    """One or more generations on one model, and who asks.

    Attributes:
        capability: What it counts as.
        entry: The model.
        generations: One for each prompt; all share their sampling.
        tenant: For counting tokens.
        request_id: For counting tokens.
    """

    capability: Capability
    entry: ModelEntry
    generations: Sequence[Generation]
    tenant: str
    request_id: str


def sampling(request: Input, *, max_tokens: int | None, top_logprobs: int | None) -> Sampling:
    """Gives what decides the choice of tokens."""
    stop = request.stop
    return Sampling(
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        stop=(stop,) if isinstance(stop, str) else stop or (),
        n=request.n,
        top_logprobs=top_logprobs,
        logit_bias=request.logit_bias,
        min_tokens=request.min_tokens,
    )


def message_interval(request: Input) -> float:
    """How often the service tells what it has generated, in seconds.

    A whole answer needs no token at once. Where it does not fit into one message, a caller
    who leaves is charged up to the last one: hence not rarer.
    """
    return 0.0 if request.stream else WHOLE_ANSWER_INTERVAL


def wants_usage(request: Input) -> bool:
    """Whether a stream ends with its usage.

    Raises:
        InvalidArgument: Options of a stream were given for an answer that is none.
    """
    if request.stream_options is None:
        return False
    if not request.stream:
        raise InvalidArgument(
            "'stream_options' is only allowed when 'stream' is true.", field="stream_options"
        )
    return request.stream_options.include_usage


def text_job(gateway: Gateway, work: TextWork) -> Job[tuple[int, Deltas]]:
    """Makes the job: bounded by bytes, fitted by exact counts if a token limit refuses."""
    window = work.entry.context_length
    read = sum(prompt_bound(item.prompt, window) for item in work.generations)
    written = answer_bound(work.generations[0].sampling.max_tokens, window)

    async def fit(left: int) -> Job[tuple[int, Deltas]]:
        return await _fitted(gateway, work, left)

    return _job(gateway, work, read, written, fit)


async def _fitted(gateway: Gateway, work: TextWork, left: int) -> Job[tuple[int, Deltas]]:
    """Reserves what the prompt really is, and caps an answer whose length was left open."""
    whole, read = work, 0
    for item in work.generations:
        read += await _count(gateway, work, item)
    answers = len(work.generations) * (work.generations[0].sampling.n or 1)
    window = work.entry.context_length
    asked = work.generations[0].sampling.max_tokens
    written = answer_bound(asked, window)
    if asked is None and left - read >= answers:
        written = min(written, (left - read) // answers)
        capped = tuple(
            msgspec.structs.replace(
                item, sampling=msgspec.structs.replace(item.sampling, max_tokens=written)
            )
            for item in work.generations
        )
        work = replace(work, generations=capped)

    async def fit(left: int) -> Job[tuple[int, Deltas]]:
        # Only a cost is refused twice: now that the input is known, it buys more output.
        return await _fitted(gateway, whole, left)

    return _job(gateway, work, read, written, fit if asked is None and left > read else None)


async def _count(gateway: Gateway, work: TextWork, item: Generation) -> int:
    if not isinstance(item.prompt, str) and isinstance(item.prompt, Sequence):
        return len(item.prompt)
    return await gateway.llm.count_tokens(
        item.model, item.prompt, tenant=work.tenant, request_id=work.request_id
    )


def _job(
    gateway: Gateway,
    work: TextWork,
    read: int,
    written: int,
    fit: Callable[[int], Awaitable[Job[tuple[int, Deltas]]]] | None,
) -> Job[tuple[int, Deltas]]:
    answers = len(work.generations) * (work.generations[0].sampling.n or 1)

    whole = _fits_one_message(work.generations, written * answers)

    def call(caller: Caller) -> UpstreamCall[tuple[int, Deltas]]:
        start = gateway.llm.generate_whole if whole else gateway.llm.generate
        return ChainedCalls([partial(start, item, caller) for item in work.generations])

    return Job(
        capability=work.capability,
        model=work.entry.id,
        method=GENERATE_WHOLE if whole else GENERATE,
        estimate=Usage(
            model=work.entry.id,
            input_tokens=read,
            output_tokens=written * answers,
            estimated=True,
        ),
        call=call,
        fit=fit,
    )


def _fits_one_message(generations: Sequence[Generation], written: int) -> bool:
    """Whether an answer of at most `written` tokens can come as one message, and may.

    One message costs the gateway half of what a stream does. An answer that the client gets
    in pieces is no such answer, nor are several prompts, nor one that repeats its prompt.
    """
    first, *others = generations
    if others or first.echo or not first.min_interval:
        return False
    top = first.sampling.top_logprobs
    each = _TOKEN_BYTES + (0 if top is None else _LOGPROB_BYTES * (1 + top))
    return written * each <= _MESSAGE_BYTES
