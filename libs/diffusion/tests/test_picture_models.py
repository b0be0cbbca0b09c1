"""When picture models come into memory and leave it, and what an idle one gives back."""

from contextlib import aclosing
from pathlib import Path

import pytest
from picture_requests import job

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelState
from atrium_common.errors import Conflict, Overloaded
from atrium_common.lifecycle import Lifecycle, LifecyclePolicy
from atrium_common.testing.rounds import memory_rounds
from atrium_common.testing.toys import ToyClock
from atrium_diffusion.domain import PictureMade
from atrium_diffusion.engines.fake import FakeEngine

ROUNDS = 3
"""Other services play ten; a picture model takes seconds to load and to try."""


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def entry(model: str) -> ModelEntry:
    return ModelEntry.model_validate(
        {
            "id": model,
            "service": "text2image",
            "capabilities": ["text-to-image"],
            "engine": "fake",
            "memory_mib": 600,
        }
    )


def engine(lifecycle: Lifecycle) -> FakeEngine:
    return FakeEngine([entry("one"), entry("two")], lifecycle=lifecycle)


async def draw(pictures: FakeEngine, model: str) -> int:
    events = pictures.draw(pictures.plan(job(model=model)))
    return len([event async for event in events if isinstance(event, PictureMade)])


def ready(pictures: FakeEngine) -> list[str]:
    return [info.id for info in pictures.models() if info.state is ModelState.READY]


async def test_a_models_first_picture_loads_it_and_idleness_unloads_it() -> None:
    clock = ToyClock()
    lifecycle = Lifecycle(LifecyclePolicy(keep_alive=300), at_start=(), clock=clock)
    pictures = engine(lifecycle)
    await pictures.load()
    assert ready(pictures) == []
    pictures.check_ready("two")
    assert await draw(pictures, "two") == 1
    assert ready(pictures) == ["two"]
    clock.seconds += 301
    await lifecycle.sweep()
    assert ready(pictures) == []
    await pictures.close()


async def test_a_picture_makes_room_for_its_model_but_never_of_a_busy_one() -> None:
    policy = LifecyclePolicy(memory_bytes=1000 << 20, patience=0.0)
    pictures = engine(Lifecycle(policy, at_start=()))
    assert await draw(pictures, "one") == 1
    assert await draw(pictures, "two") == 1
    assert ready(pictures) == ["two"], "one was evicted for it"
    async with aclosing(pictures.draw(pictures.plan(job(model="two")))) as events:
        await anext(events)
        with pytest.raises(Overloaded):
            await draw(pictures, "one")
        with pytest.raises(Conflict):
            await pictures.unload_model("two")
        assert ready(pictures) == ["two"]
    assert await draw(pictures, "one") == 1
    assert ready(pictures) == ["one"]
    await pictures.close()


@pytest.mark.model
async def test_an_idle_model_gives_its_memory_back(starter_folder: Path) -> None:
    engine_path = "atrium_diffusion.engines.diffusers:DiffusersEngine"
    seen = await memory_rounds(engine_path, starter_folder.name, rounds=ROUNDS)
    seen.check(size_of(starter_folder))
