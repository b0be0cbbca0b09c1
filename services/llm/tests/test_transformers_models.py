"""What the starter models do through the transformers engine, beyond the contract."""

import asyncio
import time
from pathlib import Path

import pytest
from engine_contract import chat, drain
from real_models import CHAT, EMBEDDING, starter_entry, starter_store

from atrium_common.catalogue import CatalogueError
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import InvalidArgument, Unavailable, Unimplemented
from atrium_common.weights import WeightsError, WeightStore
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    EmbeddingJob,
    GenerationJob,
    RerankJob,
    Role,
    Sampling,
    TextInput,
    TextPart,
    TokenInput,
)
from atrium_llm.engines.transformers import TransformersEngine

pytestmark = pytest.mark.model


def ask(text: str, **sampling: object) -> GenerationJob:
    """Makes a greedy question."""
    settings = {"temperature": 0.0, "max_tokens": 24, **sampling}
    return GenerationJob(model=CHAT, input=chat(text), sampling=Sampling(**settings))  # type: ignore[arg-type]


async def test_it_knows_the_capital_of_france(transformers_engine: TransformersEngine) -> None:
    answer = await drain(transformers_engine, ask("What is the capital of France?"))
    assert "Paris" in answer.text


async def test_characters_over_several_tokens_arrive_whole(
    transformers_engine: TransformersEngine,
) -> None:
    repeat = GenerationJob(
        model=CHAT,
        input=TextInput("🌊世界🌊世界🌊世界🌊世界🌊世界🌊世界"),
        sampling=Sampling(temperature=0.0, max_tokens=16, top_logprobs=0),
    )
    answer = await drain(transformers_engine, repeat)
    spelled = b"".join(token.token_bytes for token in answer.logprobs[0])
    assert answer.text == spelled.decode(errors="replace")
    whole = [delta.text for delta in answer.deltas[:-1] if delta.text]
    assert any(not text.isascii() for text in whole)
    assert all("\ufffd" not in text for text in whole)


async def test_a_developer_is_read_as_system(transformers_engine: TransformersEngine) -> None:
    def count(role: Role) -> "asyncio.Task[int]":
        messages = [ChatMessage(role=role, content=[TextPart("Be brief.")]), *chat("Hi").messages]
        counted = transformers_engine.count_tokens(CHAT, ChatInput(messages=messages))
        return asyncio.ensure_future(counted)

    assert await count(Role.DEVELOPER) == await count(Role.SYSTEM)


async def test_models_tells_what_it_is(transformers_engine: TransformersEngine) -> None:
    infos = {info.id: info for info in transformers_engine.models()}
    assert infos[CHAT].context_length == 8192
    assert infos[CHAT].verified_at is not None
    assert infos[EMBEDDING].embedding_dimensions == 384
    assert infos[EMBEDDING].context_length == 256


async def test_embeddings_put_like_beside_like(transformers_engine: TransformersEngine) -> None:
    documents = ["A dog barks at night.", "Interest rates rose.", "Puppies are young dogs."]
    result = await transformers_engine.rerank(
        RerankJob(model=EMBEDDING, query="pet dogs", documents=documents, top_n=2)
    )
    assert {ranked.index for ranked in result.results} == {0, 2}
    assert result.results[0].score >= result.results[1].score


async def test_embeddings_of_a_batch_are_those_alone(
    transformers_engine: TransformersEngine,
) -> None:
    texts = [TextInput("word " * n) for n in (1, 200, 30, 3)]
    batch = await transformers_engine.embed(EmbeddingJob(model=EMBEDDING, inputs=texts))
    for text, vector in zip(texts, batch.vectors, strict=True):
        alone = await transformers_engine.embed(EmbeddingJob(model=EMBEDDING, inputs=[text]))
        assert list(alone.vectors[0]) == pytest.approx(list(vector), abs=1e-5)


async def test_a_long_input_is_cut_only_when_asked(
    transformers_engine: TransformersEngine,
) -> None:
    job = EmbeddingJob(model=EMBEDDING, inputs=[TextInput("fine"), TextInput("word " * 400)])
    with pytest.raises(InvalidArgument) as caught:
        await transformers_engine.embed(job)
    assert caught.value.field == "inputs[1]"
    assert "402" in caught.value.message
    cut = EmbeddingJob(model=EMBEDDING, inputs=job.inputs, truncate=True)
    result = await transformers_engine.embed(cut)
    assert result.usage.input_tokens == 256 + 3


@pytest.mark.parametrize(
    ("job", "field"),
    [
        (EmbeddingJob(model=EMBEDDING, inputs=[TextInput("x")], dimensions=64), "dimensions"),
        (EmbeddingJob(model=EMBEDDING, inputs=[TokenInput([10**6])]), "inputs[0].ids"),
    ],
)
async def test_embedding_refusals_name_their_field(
    transformers_engine: TransformersEngine, job: EmbeddingJob, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await transformers_engine.embed(job)
    assert caught.value.field == field


async def test_a_chat_model_does_not_embed_nor_rank(
    transformers_engine: TransformersEngine,
) -> None:
    with pytest.raises(Unimplemented):
        await transformers_engine.rerank(RerankJob(model=CHAT, query="a", documents=["b"]))
    with pytest.raises(Unimplemented):
        await transformers_engine.embed(EmbeddingJob(model=CHAT, inputs=[TextInput("x")]))
    with pytest.raises(Unimplemented):
        await drain(transformers_engine, GenerationJob(model=EMBEDDING, input=TextInput("x")))


async def test_embedding_does_not_wait_for_generation(
    transformers_engine: TransformersEngine,
) -> None:
    writing = asyncio.create_task(
        drain(transformers_engine, ask("Tell me a story.", max_tokens=60, min_tokens=60))
    )
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await transformers_engine.embed(EmbeddingJob(model=EMBEDDING, inputs=[TextInput("hi")]))
    assert not writing.done(), f"embedding took {time.monotonic() - begun:.1f} s"
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing


async def test_missing_weights_are_a_failed_model_not_a_crash(tmp_path: Path) -> None:
    engine = TransformersEngine([starter_entry(CHAT)], store=WeightStore(tmp_path))
    with pytest.raises(WeightsError, match="fetched"):
        await engine.load()
    info = engine.models()[0]
    assert info.state is ModelState.FAILED
    assert "fetched" in info.detail
    with pytest.raises(Unavailable):
        await drain(engine, ask("Hi"))
    await engine.close()


def test_an_unknown_option_is_refused_at_once() -> None:
    entry = starter_entry(CHAT, options={"slotss": 3})
    with pytest.raises(CatalogueError, match="slotss"):
        TransformersEngine([entry], store=starter_store())


async def test_matryoshka_vectors_are_cut_and_normal() -> None:
    entry = starter_entry(
        EMBEDDING, options={"matryoshka": True}, capabilities=(Capability.EMBEDDING,)
    )
    engine = TransformersEngine([entry], store=starter_store(), device="cpu")
    await engine.load()
    job = EmbeddingJob(model=EMBEDDING, inputs=[TextInput("x")], dimensions=64)
    vector = (await engine.embed(job)).vectors[0]
    assert len(vector) == 64
    assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-4)
    await engine.close()
