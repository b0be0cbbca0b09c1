"""The fake engine keeps every engine's promises, so tests over it mean something."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from engine_contract import TextEngineContract, drain

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_llm.domain import (
    GenerationJob,
    JsonSchema,
    RerankJob,
    Sampling,
    TextInput,
    TokenInput,
)
from atrium_llm.engines.base import TextGenerationEngine
from atrium_llm.engines.fake import FakeEngine

CHAT = ModelEntry(
    id="fake-chat",
    service="llm",
    capabilities=(Capability.CHAT, Capability.COMPLETION),
    engine="fake",
    options={"reply_tokens": 4000, "tokens_per_step": 1},
)
EMBEDDING = ModelEntry(
    id="fake-embedding",
    service="llm",
    capabilities=(Capability.EMBEDDING, Capability.RERANK),
    engine="fake",
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine() -> AsyncIterator[FakeEngine]:
    """A loaded engine."""
    engine = FakeEngine([CHAT, EMBEDDING])
    await engine.load()
    yield engine
    await engine.close()


class TestFakeEngine(TextEngineContract):
    """The same suite that the real engines pass."""

    model = "fake-chat"
    embedding_model = "fake-embedding"
    step_seconds = 0.5

    def running(self, engine: TextGenerationEngine) -> int | None:
        """The fake counts its open generations."""
        assert isinstance(engine, FakeEngine)
        return engine.running


async def test_the_same_job_has_the_same_answer(engine: FakeEngine) -> None:
    job = GenerationJob(
        model="fake-chat", input=TextInput("hello"), sampling=Sampling(max_tokens=9, n=2, seed=5)
    )
    assert (await drain(engine, job)).texts == (await drain(engine, job)).texts


async def test_echo_returns_the_prompt_first(engine: FakeEngine) -> None:
    for prompt, start in ((TextInput("Once upon"), "Once upon"), (TokenInput([1, 2]), "quick")):
        job = GenerationJob(
            model="fake-chat", input=prompt, sampling=Sampling(max_tokens=2), echo=True
        )
        assert (await drain(engine, job)).text.startswith(start)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer", "exclusiveMinimum": 3}, "minItems": 2},
        {"$defs": {"a": {"type": "string", "minLength": 2}}, "$ref": "#/$defs/a"},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}], "type": "object"},
        {"type": "number", "maximum": -2.5, "multipleOf": 0.5},
    ],
)
async def test_schemas_are_satisfied(engine: FakeEngine, schema: dict[str, object]) -> None:
    job = GenerationJob(model="fake-chat", input=TextInput("x"), response_format=JsonSchema(schema))
    assert (await drain(engine, job)).text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[0-9]{4}$"},
        {"type": "array", "minItems": 10**9},
        {"$ref": "#"},
        {"not": {}},
    ],
)
async def test_a_schema_beyond_it_is_refused(engine: FakeEngine, schema: dict[str, object]) -> None:
    job = GenerationJob(model="fake-chat", input=TextInput("x"), response_format=JsonSchema(schema))
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, job)
    assert caught.value.field == "job.response_format.json_schema"


async def test_ranking_puts_shared_words_first(engine: FakeEngine) -> None:
    job = RerankJob(model="fake-embedding", query="red fox", documents=["blue", "a red fox", "red"])
    assert [result.index for result in (await engine.rerank(job)).results] == [1, 2, 0]


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(CatalogueError, match=r"options\.pace"):
        FakeEngine([CHAT.model_copy(update={"options": {"pace": 3}})])
