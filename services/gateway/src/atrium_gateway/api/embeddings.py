"""`POST /v1/embeddings`: turns texts into vectors."""

import array
import asyncio
import base64
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from atrium_common.domain import Capability, Usage
from atrium_common.errors import AtriumError, InvalidArgument
from atrium_gateway.api.bounds import prompt_bound
from atrium_gateway.api.completions_schema import TokenId
from atrium_gateway.api.decode import decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.text_schema import Model
from atrium_gateway.pipeline import Job, Run
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.llm import EMBED, Vectors

_ENCODER = msgspec.json.Encoder()
MAX_INPUTS = 2048
LARGE = 50_000
"""Values from which on an answer is encoded off the event loop: some milliseconds."""
_INDEX = re.compile(r"^input\[(\d+)\]")


class EmbeddingRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/embeddings`."""

    input: (
        Annotated[str, Meta(min_length=1)]
        | Annotated[
            list[
                Annotated[str, Meta(min_length=1)]
                | TokenId
                | Annotated[list[TokenId], Meta(min_length=1)]
            ],
            Meta(min_length=1),
        ]
    )
    model: Model = ""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    # Accepted without effect: it asks for nothing.
    user: str | None = None


class Embedding(Struct, frozen=True):
    """One vector: numbers, or base64 of little-endian 32-bit floats."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(Struct, frozen=True):
    """What a request consumed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `POST /v1/embeddings`."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


async def create_embedding(exchange: Exchange) -> None:
    """Embeds one or more texts or token lists, as OpenAI's endpoint does."""
    principal = await exchange.authenticate()
    request = decode(await exchange.json_body(), EmbeddingRequest)
    entry = exchange.gateway.resolve(request.model, Capability.EMBEDDING)
    exchange.record.model = entry.id
    items = inputs(request.input)
    tokens = sum(prompt_bound(item, entry.context_length) for item in items)
    job: Job[tuple[int, Vectors]] = Job(
        capability=Capability.EMBEDDING,
        model=entry.id,
        method=EMBED,
        estimate=Usage(model=entry.id, input_tokens=tokens, estimated=True),
        call=lambda caller: exchange.gateway.llm.embed(
            entry.id, items, request.dimensions, caller, width=entry.embedding_dimensions
        ),
    )
    async with exchange.until_disconnect():
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            vectors = await _collected(run)
        encode = partial(_encoded, request.encoding_format, entry.id, vectors, run.usage)
        large = len(vectors) * len(vectors[0]) > LARGE
        body = await asyncio.to_thread(encode) if large else encode()
        await exchange.reply(body, headers=limit_headers(run.reservation.limits))


async def _collected(run: Run[tuple[int, Vectors]]) -> Vectors:
    vectors: list[Sequence[float]] = []
    try:
        async for _, part in run:
            vectors.extend(part)
    except AtriumError as err:
        # The service counts the inputs of one call, the client those of its request.
        index = _INDEX.match(err.field or "")
        if err.field and index:
            name = f"input[{int(index[1]) + len(vectors)}]"
            err.field = name + err.field[index.end() :]
            err.message = err.message.replace(f"inputs[{index[1]}]", name)
        raise
    return vectors


def _encoded(encoding: str | None, model: str, vectors: Vectors, usage: Usage) -> bytes:
    encode = as_base64 if encoding == "base64" else list
    answer = EmbeddingAnswer(
        data=[Embedding(at, encode(vector)) for at, vector in enumerate(vectors)],
        model=model,
        usage=EmbeddingUsage(usage.input_tokens, usage.input_tokens),
    )
    return _ENCODER.encode(answer)


def inputs(given: str | Sequence[str | int | Sequence[int]]) -> list[str | Sequence[int]]:
    """Tells one input from several.

    Raises:
        InvalidArgument: A list that mixes texts, tokens and token lists, or is too long.
    """
    if isinstance(given, str):
        return [given]
    if all(isinstance(item, int) for item in given):
        return [[item for item in given if isinstance(item, int)]]
    several = [item for item in given if not isinstance(item, int)]
    if len(several) < len(given):
        raise InvalidArgument("A list of inputs must not mix text and tokens.", field="input")
    if len(several) > MAX_INPUTS:
        raise InvalidArgument(f"At most {MAX_INPUTS} inputs at once.", field="input")
    return several


def as_base64(vector: Sequence[float]) -> str:
    """Packs a vector as little-endian 32-bit floats in base64."""
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
