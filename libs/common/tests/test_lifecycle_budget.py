"""The promises of the memory budget: never over it, never a busy model, always an answer."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_common.domain import ModelState
from atrium_common.errors import AtriumError, Conflict, Overloaded, Unavailable
from atrium_common.lifecycle import Lifecycle, LifecyclePolicy
from atrium_common.testing.toys import ToyClock, ToyEngine, toy_entry

MIB = 1 << 20


def lifecycle_of(limit_mib: int, *, clock: ToyClock, patience: float = 60.0) -> Lifecycle:
    policy = LifecyclePolicy(memory_bytes=limit_mib * MIB, patience=patience)
    return Lifecycle(policy, clock=clock, release=lambda: None)


async def use(engine: ToyEngine, model: str, clock: ToyClock) -> None:
    clock.seconds += 1
    async with engine.host.use(model):
        assert model in engine.inside


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - tasks of the loop take their steps
        await asyncio.sleep(0)


async def test_the_least_recently_used_of_any_engine_makes_room() -> None:
    clock = ToyClock()
    shared = lifecycle_of(10, clock=clock)
    words = ToyEngine(
        [toy_entry("a", memory_mib=4), toy_entry("b", memory_mib=4)], lifecycle=shared
    )
    sounds = ToyEngine(
        [toy_entry("c", memory_mib=2), toy_entry("d", memory_mib=6)], lifecycle=shared
    )
    await use(words, "a", clock)
    await use(words, "b", clock)
    await use(sounds, "c", clock)
    await use(words, "a", clock)
    await use(sounds, "d", clock)  # b, then c: a was used since
    assert (words.closed, sounds.closed) == (["b"], ["c"])
    assert words.inside | sounds.inside == {"a", "d"}


async def test_a_load_waits_for_a_busy_model_and_then_takes_its_place() -> None:
    clock = ToyClock()
    entries = [toy_entry(model, memory_mib=6) for model in "ab"]
    engine = ToyEngine(entries, lifecycle=lifecycle_of(10, clock=clock))
    async with engine.host.use("a"):
        waiting = asyncio.create_task(use(engine, "b", clock))
        for _ in range(20):
            await asyncio.sleep(0)
        assert engine.opened == ["a"]
    await waiting
    assert (engine.opened, engine.closed) == (["a", "b"], ["a"])


async def test_a_load_that_can_not_have_its_room_is_told_when_to_come_again() -> None:
    clock = ToyClock()
    entries = [toy_entry(model, memory_mib=6) for model in "ab"]
    engine = ToyEngine(entries, lifecycle=lifecycle_of(10, clock=clock, patience=0.0))
    async with engine.host.use("a"):
        with pytest.raises(Overloaded) as caught:
            await use(engine, "b", clock)
        assert (caught.value.reason, caught.value.retry_after is None) == ("MODELS_BUSY", False)
        assert [info.state for info in engine.models()] == [ModelState.READY, ModelState.UNLOADED]
    await use(engine, "b", clock)  # no pause: the model itself is sound


async def test_a_load_that_nobody_waits_for_any_more_evicts_nothing() -> None:
    clock = ToyClock()
    entries = [toy_entry(model, memory_mib=6) for model in "ab"]
    engine = ToyEngine(entries, lifecycle=lifecycle_of(10, clock=clock))
    async with engine.host.use("a"):
        waiting = asyncio.create_task(use(engine, "b", clock))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: engine.models()[1].state is ModelState.UNLOADED)
    assert (engine.opened, engine.closed) == (["a"], [])


async def test_a_model_larger_than_the_budget_is_refused_by_its_size() -> None:
    clock = ToyClock()
    engine = ToyEngine([toy_entry("a", memory_mib=11)], lifecycle=lifecycle_of(10, clock=clock))
    with pytest.raises(Unavailable, match="needs 11 MiB; the service's budget is 10 MiB") as caught:
        await engine.load_model("a")
    assert caught.value.reason == "MODEL_TOO_LARGE"
    assert engine.models()[0].state is ModelState.FAILED


async def test_loading_at_start_evicts_nothing() -> None:
    clock = ToyClock()
    entries = [toy_entry(model, memory_mib=4) for model in "abc"]
    engine = ToyEngine(entries, lifecycle=lifecycle_of(10, clock=clock))
    await engine.load()
    assert [info.state for info in engine.models()] == [
        ModelState.READY,
        ModelState.READY,
        ModelState.UNLOADED,
    ]
    await use(engine, "c", clock)
    assert engine.closed == ["a"]


async def test_a_model_of_unknown_size_is_counted_by_what_it_took() -> None:
    clock = ToyClock()
    entries = [toy_entry("a", memory_mib=4), toy_entry("b", memory_mib=None)]
    engine = ToyEngine(entries, lifecycle=lifecycle_of(10, clock=clock))
    engine.sizes["b"] = 8 * MIB
    await use(engine, "a", clock)
    await use(engine, "b", clock)
    assert (engine.closed, engine.models()[1].memory_bytes) == (["a"], 8 * MIB)
    await use(engine, "a", clock)
    await use(engine, "b", clock)  # its size is known now: room is made before
    assert engine.closed == ["a", "b", "a"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["use", "hold", "let go", "load", "unload"]), st.integers(0, 5)),
    max_size=40,
)


@given(sizes=st.lists(st.integers(1, 7), min_size=6, max_size=6), steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_any_sequence_stays_within_the_budget(
    sizes: list[int], steps: list[tuple[str, int]]
) -> None:
    """Loaded models never take more than the budget; a busy one stays; all get an answer."""
    asyncio.run(_play(sizes, steps))


async def _play(sizes: list[int], steps: list[tuple[str, int]]) -> None:
    clock = ToyClock()
    shared = lifecycle_of(10, clock=clock, patience=0.0)
    entries = [toy_entry(f"m{index}", memory_mib=size) for index, size in enumerate(sizes)]
    engines = [ToyEngine(entries[:3], lifecycle=shared), ToyEngine(entries[3:], lifecycle=shared)]
    held: dict[str, asyncio.Event] = {}
    holders: list[asyncio.Task[None]] = []
    holding: dict[str, asyncio.Task[None]] = {}

    async def hold(engine: ToyEngine, model: str, release: asyncio.Event) -> None:
        async with engine.host.use(model):
            held[model] = release
            await release.wait()
            assert model in engine.inside

    for action, index in steps:
        clock.seconds += 1
        model, engine = f"m{index}", engines[index // 3]
        try:
            if action == "use":
                await use(engine, model, clock)
            elif action == "hold" and model not in held:
                release = asyncio.Event()
                holder = asyncio.create_task(hold(engine, model, release))
                holders.append(holder)
                holding[model] = holder
                await until(lambda: model in held or holder.done())  # noqa: B023 - awaited here
            elif action == "let go" and model in held:
                held.pop(model).set()
                await asyncio.wait([holding[model]])  # only then is it let go
            elif action == "load":
                await engine.load_model(model)
            elif action == "unload":
                await engine.unload_model(model)
        except (Overloaded, Conflict):
            assert held
        inside = engines[0].inside | engines[1].inside
        assert sum(sizes[int(name[1:])] for name in inside) <= 10
        assert set(held) <= inside
    for release in held.values():
        release.set()
    for result in await asyncio.gather(*holders, return_exceptions=True):
        assert result is None or isinstance(result, AtriumError)
    for engine in engines:
        await engine.close()
        assert not engine.inside
