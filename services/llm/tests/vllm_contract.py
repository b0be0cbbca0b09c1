"""The vLLM engine against the promises of every text engine, for real.

`make test-vllm` names this file to pytest in vLLM's own environment. It is not called
``test_…``, because the other environment has no vLLM and would have to skip it.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator

import jsonschema
import pytest
import pytest_asyncio
from engine_contract import SCHEMA, TextEngineContract, chat, drain, stream
from real_models import CHAT, EMBEDDING, starter_entry, starter_store

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, Unavailable, Unimplemented
from atrium_llm.domain import (
    ChatInput,
    EmbeddingJob,
    FinishReason,
    GenerationJob,
    RerankJob,
    Sampling,
    TextInput,
    TokenInput,
    Tool,
    ToolMode,
)
from atrium_llm.engines.base import TextGenerationEngine
from atrium_llm.engines.vllm import VllmEngine

ON_A_CPU = {"enforce_eager": True, "kv_cache_memory_bytes": 256 << 20, "max_num_seqs": 16}
CHAT_OPTIONS = {**ON_A_CPU, "max_model_len": 2048, "tool_notation": "hermes"}
EMBEDDING_OPTIONS = {**ON_A_CPU, "runner": "pooling", "pooler_config": {"seq_pooling_type": "MEAN"}}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine() -> AsyncIterator[VllmEngine]:
    """A chat and an embedding model, each in an engine process of its own."""
    entries = [
        starter_entry(CHAT, engine="vllm", options=CHAT_OPTIONS),
        starter_entry(
            EMBEDDING,
            engine="vllm",
            options=EMBEDDING_OPTIONS,
            capabilities=(Capability.EMBEDDING, Capability.RERANK),
        ),
    ]
    engine = VllmEngine(entries, store=starter_store())
    await engine.load()
    yield engine
    await engine.close()


class TestVllmEngine(TextEngineContract):
    """SmolLM2-135M-Instruct and all-MiniLM-L6-v2."""

    model = CHAT
    embedding_model = EMBEDDING
    prompt = chat("Tell me a long story about the sea.")

    def running(self, engine: TextGenerationEngine) -> int | None:
        """The engine counts its open generations."""
        assert isinstance(engine, VllmEngine)
        return engine.running


def _job(text: str = "Tell me a long story.", **sampling: object) -> GenerationJob:
    given = {"max_tokens": 400, "temperature": 0.0, **sampling}
    return GenerationJob(model=CHAT, input=chat(text), sampling=Sampling(**given))  # type: ignore[arg-type]


def _calling(mode: ToolMode, **choice: object) -> GenerationJob:
    tools = [
        Tool(name="report", description="Reports the weather.", parameters=SCHEMA),
        Tool(name="noop", description="Does nothing."),
    ]
    conversation = ChatInput(
        messages=chat("How is the weather in Oslo?").messages,
        tools=tools,
        tool_mode=mode,
        parallel_tool_calls=False,
        **choice,  # type: ignore[arg-type]
    )
    return GenerationJob(
        model=CHAT, input=conversation, sampling=Sampling(max_tokens=300, temperature=0.0)
    )


@pytest.mark.timeout(900)  # a busy machine takes seconds for one round
async def test_leaving_at_random_moments_aborts_in_the_engine(engine: VllmEngine) -> None:
    moments = random.Random(1)  # noqa: S311 - no secret

    async def leave() -> None:
        seen, limit = 0, moments.randrange(6)
        async with stream(engine, _job(min_tokens=400)) as events:
            async for _ in events:
                seen += 1
                if seen > limit:
                    break

    for _ in range(10):
        tasks = [asyncio.create_task(leave()) for _ in range(6)]
        await asyncio.sleep(moments.random() * 0.2)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.running == 0
    loaded = [engine._host.peek(model) for model in (CHAT, EMBEDDING)]
    unfinished = [model.engine.get_num_unfinished_requests() for model in loaded if model]
    assert unfinished == [0, 0]


async def test_usage_counts_tokens_and_not_chunks(engine: VllmEngine) -> None:
    answer = await drain(engine, _job(max_tokens=40, min_tokens=40, stop=["\x00never-met-string"]))
    assert answer.usage.output_tokens == 40


async def test_greedy_choices_are_equal(engine: VllmEngine) -> None:
    answer = await drain(engine, _job(n=3, max_tokens=6))
    assert set(answer.texts) == {0, 1, 2}
    assert len(set(answer.texts.values())) == 1


async def test_echo_and_token_ids(engine: VllmEngine) -> None:
    job = GenerationJob(
        model=CHAT, input=TextInput("Once upon"), sampling=Sampling(max_tokens=3), echo=True
    )
    assert (await drain(engine, job)).text.startswith("Once upon")
    by_ids = GenerationJob(model=CHAT, input=TokenInput([5, 6]), sampling=Sampling(max_tokens=2))
    assert (await drain(engine, by_ids)).usage.input_tokens == 2


@pytest.mark.parametrize("mode", [ToolMode.REQUIRED, ToolMode.NAMED])
async def test_a_tool_call_that_must_be_made_is_made(engine: VllmEngine, mode: ToolMode) -> None:
    choice = {"tool_name": "report"} if mode is ToolMode.NAMED else {}
    answer = await drain(engine, _calling(mode, **choice))
    assert answer.finish == {0: FinishReason.TOOL_CALLS}
    (call,) = [call for delta in answer.deltas for call in delta.tool_calls]
    assert call.name in ("report", "noop")
    if call.name == "report":
        jsonschema.validate(json.loads(call.arguments), SCHEMA)
    assert not answer.text.strip()


async def test_an_unknown_token_in_logit_bias_is_refused(engine: VllmEngine) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, _job(logit_bias={999_999: 1.0}))
    assert caught.value.field == "job.sampling.logit_bias[999999]"


async def test_a_ban_holds(engine: VllmEngine) -> None:
    free = await drain(engine, _job(max_tokens=1, top_logprobs=0))
    first = free.logprobs[0][0].token_id
    banned = await drain(engine, _job(max_tokens=1, top_logprobs=0, logit_bias={first: -100.0}))
    assert banned.logprobs[0][0].token_id != first


async def test_ranking_by_embeddings(engine: VllmEngine) -> None:
    documents = ["The price of copper rose.", "A cat sleeps on the sofa.", "Trains run late."]
    job = RerankJob(model=EMBEDDING, query="pets at home", documents=documents, top_n=2)
    result = await engine.rerank(job)
    assert len(result.results) == 2
    assert result.results[0].index == 1
    assert result.usage.input_tokens > 0


async def test_long_inputs_are_refused_or_cut(engine: VllmEngine) -> None:
    long = TextInput("word " * 600)
    with pytest.raises(InvalidArgument) as caught:
        await engine.embed(EmbeddingJob(model=EMBEDDING, inputs=[TextInput("a"), long]))
    assert caught.value.field == "inputs[1]"
    cut = await engine.embed(EmbeddingJob(model=EMBEDDING, inputs=[long], truncate=True))
    assert cut.usage.input_tokens == 256


async def test_a_chat_model_does_not_embed(engine: VllmEngine) -> None:
    with pytest.raises(Unimplemented):
        await engine.embed(EmbeddingJob(model=CHAT, inputs=[TextInput("a")]))


async def test_an_unknown_option_is_named() -> None:
    entry = starter_entry(CHAT, engine="vllm", options={"no_such_option": 1})
    with pytest.raises(Unavailable, match=r"options\.no_such_option"):
        await VllmEngine([entry], store=starter_store()).load()
