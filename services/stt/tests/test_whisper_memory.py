"""Memory that Whisper takes comes back when it is idle, and ten rounds leave nothing behind."""

from atrium_common.catalogue import ModelEntry
from atrium_common.testing.rounds import memory_rounds
from atrium_common.weights import WeightStore

ENGINE = "atrium_stt.engines.faster_whisper:FasterWhisperEngine"


async def test_an_idle_model_gives_its_memory_back_ten_times(
    base_entry: ModelEntry, store: WeightStore
) -> None:
    size = (store.ensure(base_entry) / "model.bin").stat().st_size // 2  # loaded as int8
    seen = await memory_rounds(ENGINE, base_entry.id, rounds=10)
    seen.check(size)
