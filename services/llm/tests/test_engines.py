"""The registry and the router: the right engine for each model, and clear refusals."""

from pathlib import Path

import pytest
from engine_contract import drain

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import NotFound, Unimplemented
from atrium_common.registry import with_engine
from atrium_common.weights import WeightStore
from atrium_llm.domain import EmbeddingJob, GenerationJob, TextInput
from atrium_llm.engines import open_engine, open_engines

PROVIDER = {"base_url": "http://127.0.0.1:1/v1"}


def entry(name: str, engine: str = "fake", **options: object) -> ModelEntry:
    return ModelEntry(
        id=name,
        service="llm",
        capabilities=(Capability.CHAT, Capability.EMBEDDING),
        engine=engine,
        options=options,  # type: ignore[arg-type]
    )


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    """A store that holds nothing."""
    return WeightStore(tmp_path)


async def test_each_model_goes_to_its_engine(store: WeightStore) -> None:
    entries = [entry("a"), entry("b", "openai", **PROVIDER), entry("c")]
    router = open_engines(entries, store=store)
    await router.load()
    assert [(model.id, model.engine) for model in router.models()] == [
        ("a", "fake"),
        ("b", "openai"),
        ("c", "fake"),
    ]
    assert router.engine_of("a") is router.engine_of("c")
    job = GenerationJob(model="c", input=TextInput("x"))
    assert (await drain(router.engine_of("c"), job)).usage.model == "c"
    assert (await router.embed(EmbeddingJob(model="a", inputs=[TextInput("x")]))).vectors
    with pytest.raises(NotFound):
        router.engine_of("d")
    with pytest.raises(Unimplemented):
        await router.load_model("b")  # a provider's
    await router.unload_model("a")
    assert router.models()[0].state is ModelState.UNLOADED
    await router.load_model("a")
    assert router.models()[0].state is ModelState.READY
    await router.close()
    assert router.models()[0].state is ModelState.UNLOADED


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_an_engine_that_sees_nothing_takes_no_model_that_is_said_to_see(
    store: WeightStore, engine: str
) -> None:
    sees = entry("a", engine).model_copy(
        update={"capabilities": (Capability.CHAT, Capability.IMAGE_TO_TEXT)}
    )
    with pytest.raises(CatalogueError, match=f"a: the engine {engine!r} does not see pictures"):
        open_engines([sees], store=store)


def test_another_engine_for_all_drops_the_options_of_theirs() -> None:
    changed = with_engine([entry("a", slots=2), entry("b", "openai", **PROVIDER)], "fake")
    assert [(one.engine, one.options) for one in changed] == [("fake", {"slots": 2}), ("fake", {})]


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (entry("a", "nothing"), "no engine 'nothing'"),
        (entry("a", "vllm"), r"needs 'vllm'; install atrium-llm\[vllm\]"),
        (entry("a", "openai"), r"options\.base_url"),
        (entry("a", "fake", slots=0), r"options\.slots"),
    ],
)
def test_what_does_not_hold_is_one_line(one: ModelEntry, words: str, store: WeightStore) -> None:
    with pytest.raises(CatalogueError, match=words) as caught:
        open_engine(one.engine, [one], store=store)
    assert "\n" not in str(caught.value)


def test_no_models_is_an_error(store: WeightStore) -> None:
    with pytest.raises(CatalogueError, match="names no model"):
        open_engines([], store=store)
