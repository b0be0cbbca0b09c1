"""Embedding and ranking on a vLLM model that pools; `engines/vllm.py` calls these."""

import asyncio
import math
import uuid
from collections.abc import Sequence

from vllm import PoolingParams
from vllm.entrypoints.pooling.scoring.utils import compress_token_type_ids
from vllm.exceptions import VLLMError
from vllm.pooling_params import PoolingTask

from atrium_common.errors import InvalidArgument, Unavailable, Unimplemented
from atrium_llm.domain import (
    EmbeddingJob,
    EmbeddingResult,
    RankedDocument,
    RerankJob,
    RerankResult,
    TextInput,
    TokenInput,
)
from atrium_llm.engines.vllm_model import VllmModel
from atrium_llm.engines.vllm_request import from_vllm_error


async def embed(model: VllmModel, job: EmbeddingJob) -> EmbeddingResult:
    """Embeds texts; see `TextGenerationEngine.embed`."""
    await _require(model, "embed")
    prompts = [
        await _prompt_ids(model, item, f"inputs[{index}]", truncate=job.truncate)
        for index, item in enumerate(job.inputs)
    ]
    params = PoolingParams(task="embed", dimensions=job.dimensions)
    vectors = await _pool_all(model, prompts, [params] * len(prompts))
    return EmbeddingResult(
        vectors=[_unit(vector) for vector in vectors],
        usage=model.usage(sum(map(len, prompts)), 0),
    )


async def rerank(model: VllmModel, job: RerankJob) -> RerankResult:
    """Orders documents: by a cross-encoder's score, or by the cosine of embeddings."""
    tasks = await model.engine.get_supported_tasks()
    if "classify" in tasks:
        scores, read = await _cross_scores(model, job)
    elif "embed" in tasks:
        texts = [job.query, *job.documents]
        both = EmbeddingJob(model=job.model, inputs=[TextInput(text) for text in texts])
        embedded = await embed(model, both)
        query, *documents = embedded.vectors
        scores = [math.fsum(map(float.__mul__, query, document)) for document in documents]
        read = embedded.usage.input_tokens
    else:
        raise Unimplemented(f"The model {job.model!r} does not rank documents.")
    ranked = sorted(
        (RankedDocument(index, score) for index, score in enumerate(scores)),
        key=lambda document: -document.score,
    )
    return RerankResult(results=ranked[: job.top_n], usage=model.usage(read, 0))


async def _cross_scores(model: VllmModel, job: RerankJob) -> tuple[list[float], int]:
    pairs = [await model.pair(job.query, document) for document in job.documents]
    params = [
        PoolingParams(
            task="classify",
            extra_kwargs={"compressed_token_type_ids": compress_token_type_ids(list(types))}
            if types
            else None,
        )
        for _, types in pairs
    ]
    prompts = [ids for ids, _ in pairs]
    for index, ids in enumerate(prompts):
        if len(ids) > model.window:
            raise _too_long(f"documents[{index}]", len(ids), model.window)
    vectors = await _pool_all(model, prompts, params)
    return [vector[0] for vector in vectors], sum(map(len, prompts))


async def _require(model: VllmModel, task: PoolingTask) -> None:
    if task not in await model.engine.get_supported_tasks():
        raise Unimplemented(f"The model {model.entry.id!r} does not {task}.")


async def _prompt_ids(
    model: VllmModel, item: TextInput | TokenInput, field: str, *, truncate: bool
) -> Sequence[int]:
    prompt = await model.prompt(item)
    ids = list(prompt.ids)
    if len(ids) <= model.window:
        return ids
    if not truncate:
        raise _too_long(field, len(ids), model.window)
    # The closing special token is kept: pooling by the last token reads it.
    return [*ids[: model.window - 1], ids[-1]]


def _too_long(field: str, count: int, window: int) -> InvalidArgument:
    return InvalidArgument(
        f"{field} has {count} tokens; the model's window is {window}.",
        reason="CONTEXT_LENGTH_EXCEEDED",
        field=field,
    )


async def _pool_all(
    model: VllmModel, prompts: Sequence[Sequence[int]], params: Sequence[PoolingParams]
) -> list[list[float]]:
    """Runs all prompts at once; vLLM makes the batches. Cancelling aborts every one."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_pool(model, ids, one))
                for ids, one in zip(prompts, params, strict=True)
            ]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        ours = from_vllm_error(first, None) if isinstance(first, VLLMError | ValueError) else None
        raise ours or first from errors
    return [task.result() for task in tasks]


async def _pool(model: VllmModel, ids: Sequence[int], params: PoolingParams) -> list[float]:
    stream = model.engine.encode({"prompt_token_ids": list(ids)}, params, uuid.uuid4().hex)
    async for output in stream:
        if output.error is not None:
            raise Unavailable("The engine could not finish.")
        if output.finished:
            values: list[float] = output.outputs.data.float().flatten().tolist()
            return values
    raise Unavailable("The engine broke off.")


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]
