"""Memory that a model takes comes back when it is idle; ten rounds leave nothing behind."""

from real_models import EMBEDDING, starter_entry

from atrium_common.testing.rounds import memory_rounds

ENGINE = "atrium_llm.engines.transformers:TransformersEngine"
SIZE = 40 << 20
"""Of MiniLM's layers in float32, in bytes; of its 47 MiB of word vectors few are ever read.
SmolLM2 plays the same, at four times the cost."""


async def test_an_idle_model_gives_its_memory_back_ten_times() -> None:
    seen = await memory_rounds(ENGINE, starter_entry(EMBEDDING).id, rounds=10)
    seen.check(SIZE)
