"""The promises of the model lifecycle: first use loads, idle leaves, failures are not final."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from atrium_common.catalogue import Catalogue, CatalogueError, FolderSource, ModelEntry
from atrium_common.composition import open_lifecycle
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import Conflict, NotFound, Unavailable
from atrium_common.lifecycle import Lifecycle, LifecyclePolicy, expected_bytes, models_at_start
from atrium_common.settings import ServiceSettings
from atrium_common.testing.toys import ToyClock, ToyEngine, ToyModel, toy_entry
from atrium_common.weights import WeightsError

MIB = 1 << 20


def made(
    *entries: ModelEntry,
    clock: ToyClock | None = None,
    at_start: frozenset[str] = frozenset(),
    **policy: float | None,
) -> tuple[ToyEngine, Lifecycle]:
    """Makes a toy engine of the entries; nothing is loaded at start unless it is named."""
    clock = clock or ToyClock()
    lifecycle = Lifecycle(
        LifecyclePolicy(**policy),  # type: ignore[arg-type]
        at_start=at_start,
        clock=clock,
        release=lambda: None,
    )
    return ToyEngine(entries, lifecycle=lifecycle, now=clock.now), lifecycle


async def use(engine: ToyEngine, model: str) -> ToyModel:
    async with engine.host.use(model) as loaded:
        return loaded


def states(engine: ToyEngine) -> list[ModelState]:
    return [info.state for info in engine.models()]


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - tasks of the loop take their steps
        await asyncio.sleep(0)


async def test_the_first_use_loads_and_later_ones_do_not() -> None:
    engine, _ = made(toy_entry("a", memory_mib=3))
    assert states(engine) == [ModelState.UNLOADED]
    first = await use(engine, "a")
    assert await use(engine, "a") is first
    (info,) = engine.models()
    assert (info.state, info.memory_bytes) == (ModelState.READY, 3 * MIB)
    assert info.verified_at is not None
    assert info.last_used_at is not None
    assert engine.opened == ["a"]


async def test_many_first_users_share_one_load() -> None:
    engine, _ = made(toy_entry("a"))
    engine.gate.clear()
    users = [asyncio.create_task(use(engine, "a")) for _ in range(5)]
    await until(lambda: engine.opened == ["a"])
    assert states(engine) == [ModelState.LOADING]
    engine.gate.set()
    models = await asyncio.gather(*users)
    assert len(set(map(id, models))) == 1
    assert engine.opened == ["a"]


async def test_a_caller_that_leaves_takes_nothing_from_the_others() -> None:
    engine, _ = made(toy_entry("a"))
    engine.gate.clear()
    first, second = (asyncio.create_task(use(engine, "a")) for _ in range(2))
    await until(lambda: engine.opened == ["a"])
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    engine.gate.set()
    assert (await second).id == "a"


async def test_a_load_that_all_callers_left_is_finished_for_the_next() -> None:
    engine, _ = made(toy_entry("a"))
    engine.gate.clear()
    only = asyncio.create_task(use(engine, "a"))
    await until(lambda: engine.opened == ["a"])
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    engine.gate.set()
    await until(lambda: states(engine) == [ModelState.READY])
    await use(engine, "a")
    assert engine.opened == ["a"]


async def test_a_failed_load_is_tried_again_but_not_at_once() -> None:
    clock = ToyClock()
    engine, lifecycle = made(toy_entry("a"), clock=clock)
    engine.faults["a"] = RuntimeError("out of\nmemory, 3 GiB were asked for")
    with pytest.raises(Unavailable) as caught:
        await use(engine, "a")
    assert (caught.value.reason, caught.value.retry_after) != ("", None)
    assert "GiB" not in caught.value.message
    (info,) = engine.models()
    detail = "RuntimeError: out of memory, 3 GiB were asked for"
    assert (info.state, info.detail) == (ModelState.FAILED, detail)
    for _ in range(20):
        with pytest.raises(Unavailable) as caught:
            await use(engine, "a")
    assert caught.value.retry_after == timedelta(seconds=5)
    assert engine.opened == ["a"]
    clock.seconds += 5
    with pytest.raises(Unavailable):
        await use(engine, "a")
    assert engine.opened == ["a", "a"]
    clock.seconds += 5  # the pause has doubled
    with pytest.raises(Unavailable):
        await use(engine, "a")
    assert engine.opened == ["a", "a"]
    del engine.faults["a"]
    clock.seconds += 5
    await lifecycle.sweep()  # nobody asks for it any more: the sweeper does
    await until(lambda: states(engine) == [ModelState.READY])
    assert engine.models()[0].detail == ""


async def test_an_operator_is_told_why_and_need_not_wait() -> None:
    engine, _ = made(toy_entry("a"))
    engine.faults["a"] = RuntimeError("no kernel image")
    with pytest.raises(Unavailable, match="could not be loaded: RuntimeError: no kernel image"):
        await engine.load_model("a")
    engine.faults["a"] = WeightsError("accept the licence", reason="LICENSE_NOT_ACCEPTED")
    with pytest.raises(WeightsError, match="accept the licence") as caught:
        await engine.load_model("a")
    assert caught.value.reason == "LICENSE_NOT_ACCEPTED"
    del engine.faults["a"]
    await engine.load_model("a")
    await engine.load_model("a")
    assert engine.opened == ["a"] * 3
    with pytest.raises(NotFound):
        await engine.load_model("b")


async def test_a_model_that_does_not_warm_up_is_closed_again() -> None:
    engine, _ = made(toy_entry("a"))
    engine.silent.add("a")
    with pytest.raises(Unavailable, match="answers nothing"):
        await engine.load_model("a")
    assert (engine.opened, engine.closed, engine.taken) == (["a"], ["a"], 0)


async def test_a_model_that_dies_is_loaded_anew_after_a_pause() -> None:
    clock = ToyClock()
    engine, _ = made(toy_entry("a"), clock=clock)
    (await use(engine, "a")).broken = "device lost"
    (info,) = engine.models()
    assert (info.state, info.detail) == (ModelState.FAILED, "device lost")
    with pytest.raises(Unavailable):
        await use(engine, "a")
    clock.seconds += 5
    assert (await use(engine, "a")).broken == ""
    assert (engine.opened, engine.closed) == (["a", "a"], ["a"])


async def test_a_busy_model_is_not_unloaded_and_an_idle_one_is() -> None:
    engine, _ = made(toy_entry("a"))
    async with engine.host.use("a"):
        with pytest.raises(Conflict) as caught:
            await engine.unload_model("a")
        assert caught.value.reason == "MODEL_BUSY"
    await engine.unload_model("a")
    await engine.unload_model("a")
    (info,) = engine.models()
    assert (info.state, info.memory_bytes, info.verified_at) == (ModelState.UNLOADED, 0, None)
    assert engine.closed == ["a"]
    with pytest.raises(Unavailable):
        await engine.verify("a")


async def test_an_idle_model_leaves_after_its_time() -> None:
    clock = ToyClock()
    engine, lifecycle = made(
        toy_entry("a"),
        toy_entry("pinned", keep_alive_seconds="forever"),
        toy_entry("brief", keep_alive_seconds=0),
        clock=clock,
        keep_alive=300.0,
    )
    for model in ("a", "pinned", "brief"):
        await use(engine, model)
    await lifecycle.sweep()
    assert engine.closed == ["brief"]
    clock.seconds += 200
    await use(engine, "a")
    clock.seconds += 299
    await lifecycle.sweep()
    assert engine.closed == ["brief"]
    clock.seconds += 1
    await lifecycle.sweep()
    assert engine.closed == ["brief", "a"]
    clock.seconds += 1e9
    await lifecycle.sweep()
    assert states(engine) == [ModelState.UNLOADED, ModelState.READY, ModelState.UNLOADED]


async def test_a_long_request_is_not_idle() -> None:
    clock = ToyClock()
    engine, lifecycle = made(toy_entry("a"), clock=clock, keep_alive=10.0)
    async with engine.host.use("a"):
        clock.seconds += 3600
        await lifecycle.sweep()
        assert engine.closed == []
    clock.seconds += 9
    await lifecycle.sweep()
    assert engine.closed == []


async def test_a_model_that_was_loaded_ahead_stays_a_minute_at_least() -> None:
    clock = ToyClock()
    engine, lifecycle = made(toy_entry("a"), clock=clock, keep_alive=0.0)
    await engine.load_model("a")
    clock.seconds += 59
    await lifecycle.sweep()
    assert engine.closed == []
    clock.seconds += 1
    await lifecycle.sweep()
    assert engine.closed == ["a"]


async def test_the_sweeper_runs_when_a_model_becomes_idle() -> None:
    engine, lifecycle = made(toy_entry("a"), keep_alive=0.0)
    sweeping = asyncio.create_task(lifecycle.run())
    await use(engine, "a")
    await until(lambda: engine.closed == ["a"])
    sweeping.cancel()


async def test_closing_ends_loads_and_nothing_loads_afterwards() -> None:
    engine, _ = made(toy_entry("a"), toy_entry("b"))
    await use(engine, "b")
    engine.gate.clear()
    waiting = asyncio.create_task(use(engine, "a"))
    await until(lambda: "a" in engine.opened)
    await engine.close()
    await engine.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await use(engine, "b")
    assert states(engine) == [ModelState.UNLOADED] * 2
    assert engine.closed == ["b"]


async def test_models_that_are_named_are_loaded_at_start_and_one_failure_is_not_all() -> None:
    engine, _ = made(toy_entry("a"), toy_entry("b"), toy_entry("c"), at_start=frozenset("ab"))
    engine.faults["a"] = RuntimeError("torn file")
    await engine.load()
    assert states(engine) == [ModelState.FAILED, ModelState.READY, ModelState.UNLOADED]
    engine, _ = made(toy_entry("a"), at_start=frozenset("a"))
    engine.faults["a"] = RuntimeError("torn file")
    with pytest.raises(Unavailable, match="torn file"):
        await engine.load()


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ("all", {"chat", "small", "vectors"}),
        ("default", {"chat", "vectors"}),
        ("none", set()),
        (" small, voice ", {"small"}),
    ],
)
def test_what_is_loaded_at_start(choice: str, chosen: set[str]) -> None:
    entries = [
        toy_entry("chat"),
        toy_entry("small"),
        toy_entry("vectors", capabilities=(Capability.EMBEDDING,)),
    ]
    known = [*(entry.id for entry in entries), "voice"]
    assert models_at_start(choice, entries, known=known) == chosen


def test_the_settings_make_the_lifecycle() -> None:
    catalogue = Catalogue(models=(toy_entry("a"), toy_entry("b")))
    settings = ServiceSettings(
        port=0, metrics_port=0, load_at_start="b", keep_alive_seconds=60, memory_budget_mib=512
    )
    lifecycle = open_lifecycle(settings, catalogue, catalogue.for_service("llm"))
    assert (lifecycle.policy.keep_alive, lifecycle.policy.memory_bytes) == (60.0, 512 * MIB)
    assert [lifecycle.starts_with(model) for model in "ab"] == [False, True]
    plain = open_lifecycle(ServiceSettings(port=0, metrics_port=0), catalogue, catalogue.models)
    assert (plain.policy.keep_alive, plain.policy.memory_bytes) == (None, None)
    assert plain.starts_with("a")
    odd = settings.model_copy(update={"load_at_start": "c"})
    with pytest.raises(CatalogueError, match="load_at_start: there is no model 'c'"):
        open_lifecycle(odd, catalogue, catalogue.models)


def test_what_a_model_needs_is_told_by_its_entry_or_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights.bin").write_bytes(bytes(1234))
    source = FolderSource(kind="folder", path=tmp_path)
    assert expected_bytes(toy_entry("a", memory_mib=3)) == 3 * MIB
    assert expected_bytes(toy_entry("a", memory_mib=None, sources=(source,))) == 1234
    assert expected_bytes(toy_entry("a", memory_mib=None)) == 0
