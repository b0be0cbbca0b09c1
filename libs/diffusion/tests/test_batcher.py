"""The promises of the batcher, with a model of arithmetic; time is counted in UNet calls."""

import asyncio
import gc
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from atrium_common.errors import (
    AtriumError,
    InternalError,
    InvalidArgument,
    Overloaded,
    Unavailable,
)
from atrium_diffusion.batcher import BatchLimits, StepBatcher
from atrium_diffusion.batcher.canvas import Canvas
from atrium_diffusion.domain import (
    AppliedLora,
    Denoising,
    PictureEvent,
    PictureJob,
    PictureMade,
    PicturePlan,
    Pixels,
    PreviewMade,
    PreviewOptions,
    RequestPlan,
    SchedulerKind,
    Source,
    StepTaken,
)
from atrium_diffusion.testing.arithmetic import LONGEST_PROMPT, ArithmeticModel, Gate


def plan(
    prompt: str = "a",
    *,
    steps: int = 4,
    n: int = 1,
    seed: int = 0,
    guidance: float = 3.0,
    scheduler: SchedulerKind = SchedulerKind.EULER,
    size: tuple[int, int] = (16, 16),
    source: Source | None = None,
    strength: float = 1.0,
    loras: tuple[AppliedLora, ...] = (),
    deterministic: bool = False,
    preview: int = 0,
    tenant: str = "t",
    weight: float = 1.0,
    priority: int = 0,
    truncate: bool = False,
) -> RequestPlan:
    job = PictureJob(
        model="m",
        prompt=prompt,
        denoising=Denoising(deterministic=deterministic),
        preview=PreviewOptions(interval=preview, max_side=64),
        priority=priority,
        truncate_prompt=truncate,
        sources=(source,) if source else (),
        strength=strength,
        tenant=tenant,
        weight=weight,
    )
    height, width = source.pixels.shape[:2] if source else size
    taken = min(int(steps * strength), steps)
    return RequestPlan(
        job=job,
        pictures=tuple(
            PicturePlan(
                index=i, width=width, height=height, seed=seed + i, steps=taken, source=source
            )
            for i in range(n)
        ),
        schedule_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        loras=loras,
    )


def source(seed: int = 0, *, masked: bool = False, size: tuple[int, int] = (16, 16)) -> Source:
    random_ = np.random.default_rng(seed)
    pixels = random_.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = None
    if masked:
        mask = np.zeros(size, dtype=np.float32)
        mask[:, size[1] // 2 :] = 1
    return Source(pixels=pixels, mask=mask)


@asynccontextmanager
async def batching(
    model: ArithmeticModel,
    *,
    on_failure: Callable[[str], None] = pytest.fail,
    clock: Callable[[], float] = time.monotonic,
    max_batch: int = 8,
    begins: int = 2,
) -> AsyncIterator[StepBatcher]:
    batcher = StepBatcher(
        model,
        limits=BatchLimits(max_batch=max_batch, begins=begins),
        events=asyncio.get_running_loop(),
        name="batcher-test",
        clock=clock,
        on_failure=on_failure,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        if model.gate is not None:
            model.gate.open(1_000_000)
        await asyncio.to_thread(batcher.stop)


async def drawn(batcher: StepBatcher, request: RequestPlan) -> list[PictureEvent]:
    return [event async for event in batcher.draw(request)]


async def pictures(batcher: StepBatcher, request: RequestPlan) -> dict[int, Pixels]:
    events = await drawn(batcher, request)
    return {event.index: event.pixels for event in events if isinstance(event, PictureMade)}


async def alone(request: RequestPlan) -> dict[int, Pixels]:
    async with batching(ArithmeticModel()) as batcher:
        return await pictures(batcher, request)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def random_plan(random_: random.Random, number: int) -> RequestPlan:
    made_from = random_.choice(["text", "text", "picture", "mask"])
    size = random_.choice([(16, 16), (16, 24)])
    return plan(
        f"prompt {number % 7}",
        steps=random_.randint(1, 9),
        n=random_.randint(1, 3),
        seed=random_.randrange(2**62),
        guidance=random_.choice([1.0, 2.0, 7.5]),
        scheduler=random_.choice([SchedulerKind.EULER, SchedulerKind.EULER_ANCESTRAL]),
        size=size,
        source=None
        if made_from == "text"
        else source(number, masked=made_from == "mask", size=size),
        strength=random_.choice([0.0, 0.5, 1.0]) if made_from != "text" else 1.0,
        loras=random_.choice([(), (AppliedLora(id="l", digest="d", scale=0.25),)]),
        deterministic=random_.random() < 0.1,
        tenant=random_.choice("abc"),
        weight=random_.choice([1.0, 2.0]),
        priority=random_.randint(-2, 2),
    )


async def test_each_picture_is_what_it_is_alone() -> None:
    random_ = random.Random(1)  # noqa: S311
    plans = [random_plan(random_, number) for number in range(40)]
    async with batching(ArithmeticModel()) as batcher:
        together = await asyncio.gather(*(pictures(batcher, one) for one in plans))
        assert batcher.unet_calls < batcher.picture_steps / 2
    for one, made in zip(plans, together, strict=True):
        expected = await alone(one)
        assert made.keys() == expected.keys() == set(range(len(one.pictures)))
        for index, pixels in made.items():
            np.testing.assert_array_equal(pixels, expected[index])


async def test_a_short_job_starts_at_the_next_tick_though_eight_long_ones_run() -> None:
    model = ArithmeticModel()
    model.gate = Gate()
    async with batching(model) as batcher:
        tasks = [asyncio.create_task(drawn(batcher, plan(f"long {i}", steps=50))) for i in range(8)]
        await model.gate.reached()
        while len(model.calls[-1].prompts) < 16:
            await model.gate.step()
        for newcomer in (plan("short"), plan("large", size=(32, 32)), plan("other", tenant="u")):
            tasks.append(asyncio.create_task(drawn(batcher, newcomer)))
            await until(lambda: batcher.waiting == 1)
            await model.gate.step()  # the tick that was under way when it came
            assert newcomer.job.prompt in model.calls[-1].prompts
            for _ in range(8):
                await model.gate.step()
            assert newcomer.job.prompt not in model.calls[-1].prompts
        model.gate.open(1_000)
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("size", [(16, 16), (24, 32)])
async def test_a_flood_delays_another_tenants_first_step_by_two_ticks_at_most(
    size: tuple[int, int],
) -> None:
    model = ArithmeticModel()
    model.gate = Gate()
    async with batching(model) as batcher:
        tasks = [
            asyncio.create_task(drawn(batcher, plan(f"flood {i}", steps=3, tenant="flooder")))
            for i in range(200)
        ]
        await model.gate.reached()
        for _ in range(10):
            await model.gate.step()
        asked = len(model.calls)
        waiting = batcher.waiting
        tasks.append(asyncio.create_task(drawn(batcher, plan("first", steps=30, size=size))))
        await until(lambda: batcher.waiting == waiting + 1)
        await model.gate.step()
        await model.gate.step()
        assert "first" in {p for call in model.calls[asked:] for p in call.prompts}
        model.gate.open(1_000)
        await asyncio.gather(*tasks)


async def test_closing_frees_the_place_within_one_step() -> None:
    model = ArithmeticModel()
    async with batching(model, max_batch=1) as batcher:
        model.gate = Gate()
        stream = batcher.draw(plan("leaves", steps=50, n=3))
        reading = asyncio.ensure_future(anext(stream))
        await model.gate.reached()
        model.gate.open()
        first = await reading
        assert isinstance(first, StepTaken)
        await model.gate.reached()
        stays = asyncio.create_task(drawn(batcher, plan("stays", steps=1)))
        await until(lambda: batcher.waiting == 3)
        closing = asyncio.ensure_future(stream.aclose())
        await asyncio.sleep(0)
        model.gate.open()
        await model.gate.reached()
        await closing
        assert [call.prompts[1] for call in model.calls] == ["leaves", "leaves", "stays"]
        assert batcher.running + batcher.waiting == 1
        model.gate.open()
        await stays


def alive_canvases() -> set[int]:
    gc.collect()
    return {id(o) for o in gc.get_objects() if type(o) is Canvas}


async def test_three_hundred_who_leave_at_random_moments_leave_nothing() -> None:
    random_ = random.Random(2)  # noqa: S311
    model = ArithmeticModel()

    async def read(batcher: StepBatcher, request: RequestPlan, events: int) -> None:
        steps = Counter[int]()
        async with aclosing(batcher.draw(request)) as stream:
            async for event in stream:
                if isinstance(event, StepTaken):
                    steps[event.index] += 1
                    assert event.step == steps[event.index] <= event.steps
                events -= 1
                if events <= 0:
                    return

    async def come_and_go(batcher: StepBatcher, number: int) -> None:
        await asyncio.sleep(random_.random() * 0.5)
        request = random_plan(random_, number)
        reading = asyncio.create_task(read(batcher, request, random_.randint(1, 30)))
        if random_.random() < 0.5:
            await asyncio.sleep(random_.random() * 0.1)
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if not reading.cancelled():
            reading.result()

    known = alive_canvases()
    async with batching(model) as batcher:
        before = await alone(plan("the same", steps=5))
        await asyncio.gather(*(come_and_go(batcher, number) for number in range(300)))
        assert batcher.running == batcher.waiting == 0
        after = await pictures(batcher, plan("the same", steps=5))
        np.testing.assert_array_equal(before[0], after[0])
        assert alive_canvases() <= known


async def test_a_slow_reader_holds_up_nobody_and_finds_the_newest_preview() -> None:
    async with batching(ArithmeticModel()) as batcher:
        slow = batcher.draw(plan("slow", steps=30, preview=1))
        events = [await anext(slow)]
        await drawn(batcher, plan("quick", steps=40))
        events += [event async for event in slow]
    steps = [event.step for event in events if isinstance(event, StepTaken)]
    previews = [event.step for event in events if isinstance(event, PreviewMade)]
    assert steps == list(range(1, 31))
    assert previews[-1] == 29
    assert len(previews) < 29
    assert isinstance(events[-1], PictureMade)


async def test_previews_come_at_their_interval_but_not_for_the_last_step() -> None:
    async with batching(ArithmeticModel()) as batcher:
        previews: list[PreviewMade] = []
        async for event in batcher.draw(plan(steps=9, preview=3, size=(32, 64))):
            previews += [event] if isinstance(event, PreviewMade) else []
    assert previews[-1].step == 6
    assert previews[-1].pixels.shape == (4, 8, 3)


async def test_shares_follow_weights_two_to_one() -> None:
    model = ArithmeticModel()
    model.gate = Gate()
    async with batching(model, max_batch=4) as batcher:
        tasks = [
            asyncio.create_task(
                drawn(batcher, plan(tenant, steps=100, tenant=tenant, weight=weight))
            )
            for tenant, weight in (("heavy", 2.0), ("light", 1.0))
            for _ in range(4)
        ]
        await model.gate.reached()
        await until(lambda: batcher.running + batcher.waiting == 8)
        await model.gate.step()
        begun = len(model.calls)
        for _ in range(60):
            await model.gate.step()
        shares = Counter(p for call in model.calls[begun:] for p in call.prompts if p)
        model.gate.open(1_000)
        await asyncio.gather(*tasks)
    assert sum(shares.values()) == 240
    assert shares["heavy"] == pytest.approx(2 * shares["light"], abs=4)


async def test_while_others_run_no_more_than_two_begin_in_a_tick() -> None:
    model = ArithmeticModel()
    model.gate = Gate()
    async with batching(model, begins=2) as batcher:
        first = asyncio.create_task(drawn(batcher, plan("first", steps=40)))
        await model.gate.reached()
        late = asyncio.create_task(drawn(batcher, plan("late", steps=40, n=6)))
        await until(lambda: batcher.waiting > 0)
        for expected in (2, 4, 6, 6):
            await model.gate.step()
            assert model.calls[-1].prompts.count("late") == expected
        model.gate.open(1_000)
        await asyncio.gather(first, late)


async def test_out_of_memory_shrinks_the_batch_and_changes_no_picture() -> None:
    plans = [plan(f"p {i}", seed=i, scheduler=SchedulerKind.EULER_ANCESTRAL) for i in range(8)]
    model = ArithmeticModel()
    model.room = 3 * 2 * 2 * 2  # three guided pictures of two latents a side
    async with batching(model) as batcher:
        together = await asyncio.gather(*(pictures(batcher, one) for one in plans))
        refused = len(model.calls) - batcher.unet_calls
        assert 1 <= refused <= 4
    for one, made in zip(plans, together, strict=True):
        np.testing.assert_array_equal(made[0], (await alone(one))[0])


async def test_a_picture_that_does_not_fit_alone_fails_and_the_others_go_on() -> None:
    model = ArithmeticModel()
    model.room = 40
    async with batching(model) as batcher:
        small = asyncio.create_task(pictures(batcher, plan("small", steps=20)))
        with pytest.raises(Overloaded) as refused:
            await drawn(batcher, plan("large", size=(64, 64)))
        assert refused.value.reason == "OUT_OF_MEMORY"
        assert await small
        assert batcher.running == batcher.waiting == 0


async def test_decoding_takes_as_many_at_once_as_memory_allows() -> None:
    request = plan(n=8)
    model = ArithmeticModel()
    model.decode_room = 2
    async with batching(model) as batcher:
        made = await pictures(batcher, request)
    assert model.decoded == [2, 2, 2, 2]
    for index, pixels in (await alone(request)).items():
        np.testing.assert_array_equal(made[index], pixels)


async def test_a_picture_that_can_not_be_decoded_alone_fails() -> None:
    model = ArithmeticModel()
    model.decode_room = 0
    async with batching(model) as batcher:
        with pytest.raises(Overloaded):
            await drawn(batcher, plan(n=2))
        assert batcher.running == batcher.waiting == 0


@pytest.mark.parametrize(
    "message",
    ["[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "not enough memory"],
)
async def test_a_cpu_that_has_no_memory_says_it_in_words(message: str) -> None:
    model = ArithmeticModel()
    model.raises["huge"] = RuntimeError(message)
    async with batching(model) as batcher:
        with pytest.raises(Overloaded):
            await drawn(batcher, plan("huge"))


async def fails_alone(model: ArithmeticModel, bad: RequestPlan) -> AtriumError:
    """Draws a bad request among good ones, which must not notice; returns its error."""
    good = [plan(f"good {i}", steps=12, seed=i) for i in range(6)]
    async with batching(model) as batcher:
        results = await asyncio.gather(
            *(pictures(batcher, one) for one in (*good, bad)), return_exceptions=True
        )
        assert batcher.running == batcher.waiting == 0
    for one, made in zip(good, results, strict=False):
        assert isinstance(made, dict)
        np.testing.assert_array_equal(made[0], (await alone(one))[0])
    error = results[-1]
    assert isinstance(error, AtriumError)
    return error


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """For tests in which the model fails: that is logged, and need not be shown."""
    with caplog.at_level("CRITICAL"):
        yield


@pytest.mark.usefixtures("quiet")
async def test_a_picture_that_breaks_the_call_fails_alone() -> None:
    model = ArithmeticModel()
    model.raises["bad"] = ValueError("no such shape")
    error = await fails_alone(model, plan("bad", n=2))
    assert isinstance(error, InternalError)
    assert "shape" not in error.message


@pytest.mark.usefixtures("quiet")
async def test_a_picture_that_can_not_begin_fails_alone() -> None:
    error = await fails_alone(ArithmeticModel(), replace(plan("bad"), scheduler=None))
    assert error.reason == "ENGINE_STEP_FAILED"


async def test_a_picture_that_is_not_a_number_fails_alone() -> None:
    model = ArithmeticModel()
    model.overflows.add("bad")
    error = await fails_alone(model, plan("bad"))
    assert error.reason == "NOT_FINITE"


async def test_a_prompt_that_is_too_long_is_refused_unless_it_may_be_cut() -> None:
    long = "x" * (LONGEST_PROMPT + 1)
    error = await fails_alone(ArithmeticModel(), plan(long))
    assert isinstance(error, InvalidArgument)
    assert await alone(plan(long, truncate=True))


@pytest.mark.usefixtures("quiet")
async def test_a_lost_device_ends_everything_and_says_so() -> None:
    model = ArithmeticModel()
    model.raises["fatal"] = torch.AcceleratorError("CUDA error: an illegal memory access")
    said: list[str] = []
    async with batching(model, on_failure=said.append) as batcher:
        requests = [plan("waits", steps=150), plan("fatal", steps=150)]
        results = await asyncio.gather(
            *(drawn(batcher, one) for one in requests), return_exceptions=True
        )
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        assert len(said) == 1
        assert "AcceleratorError" in said[0]
        with pytest.raises(Unavailable):
            await drawn(batcher, plan())
        assert batcher.running == batcher.waiting == 0


async def test_stopping_ends_what_runs() -> None:
    async with batching(ArithmeticModel()) as batcher:
        running = [asyncio.create_task(drawn(batcher, plan(steps=100_000))) for _ in range(12)]
        await until(lambda: batcher.running > 0)
        await asyncio.to_thread(batcher.stop)
        results = await asyncio.gather(*running, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
        await asyncio.to_thread(batcher.stop)
        with pytest.raises(Unavailable):
            await drawn(batcher, plan())


async def test_the_thread_ends_when_its_readers_event_loop_is_closed() -> None:
    model = ArithmeticModel()
    batchers: list[StepBatcher] = []

    async def leave() -> None:
        batcher = StepBatcher(
            model,
            limits=BatchLimits(),
            events=asyncio.get_running_loop(),
            name="batcher-orphan",
            on_failure=pytest.fail,
        )
        batchers.append(batcher)
        batcher.start()
        model.gate = Gate()
        task = asyncio.create_task(drawn(batcher, plan(steps=100)))
        await model.gate.reached()
        task.add_done_callback(lambda _: None)
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)

    def orphan() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(leave())
        loop.run_forever()
        task.result()
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        # The generator waits for the step that stands before the gate; it may not.
        loop.close()

    await asyncio.to_thread(orphan)
    if model.gate is not None:
        model.gate.open(1_000)
    await asyncio.to_thread(batchers[0].stop)
    assert len(model.calls) < 100


async def test_deterministic_pictures_are_computed_alone() -> None:
    model = ArithmeticModel()
    async with batching(model) as batcher:
        others = [asyncio.create_task(drawn(batcher, plan("other", steps=9))) for _ in range(4)]
        await drawn(batcher, plan("exact", n=2, deterministic=True))
        await asyncio.gather(*others)
    assert all(call.prompts == ("", "exact") for call in model.calls if "exact" in call.prompts)
    assert model.decoded.count(1) >= 2


async def test_pictures_with_other_adapters_are_in_other_calls() -> None:
    model = ArithmeticModel()
    strong, weak = (AppliedLora(id="l", digest="d", scale=scale) for scale in (1.0, 0.5))
    async with batching(model) as batcher:
        await asyncio.gather(
            drawn(batcher, plan("none", steps=9)),
            drawn(batcher, plan("strong", steps=9, loras=(strong,))),
            drawn(batcher, plan("weak", steps=9, loras=(weak,))),
        )
    expected = {"none": (), "strong": (strong,), "weak": (weak,)}
    for call in model.calls:
        (prompt,) = {prompt for prompt in call.prompts if prompt}
        assert call.loras == expected[prompt]


async def test_no_strength_gives_the_source_without_a_step() -> None:
    model = ArithmeticModel()
    kept = source()
    async with batching(model) as batcher:
        (event,) = await drawn(batcher, plan(source=kept, strength=0.0))
    assert isinstance(event, PictureMade)
    np.testing.assert_array_equal(event.pixels, kept.pixels)
    assert not model.calls


@pytest.mark.parametrize("strength", [0.5, 1.0])
async def test_what_a_mask_keeps_is_the_sources_bytes(strength: float) -> None:
    masked = source(masked=True)
    assert masked.mask is not None
    masked.mask[:8, :] /= 2  # half of one part: what is drawn and the source mix
    made = (await alone(plan(source=masked, strength=strength, steps=6)))[0]
    kept = masked.mask == 0
    np.testing.assert_array_equal(made[kept], masked.pixels[kept])
    assert (made[~kept] != masked.pixels[~kept]).any()


async def test_each_picture_is_told_its_share_of_the_time() -> None:
    now = iter(range(1_000_000))
    seconds = dict.fromkeys(("guided", "plain"), 0.0)
    async with batching(ArithmeticModel(), clock=lambda: float(next(now))) as batcher:

        async def read(request: RequestPlan) -> None:
            async for event in batcher.draw(request):
                if not isinstance(event, PreviewMade):
                    seconds[request.job.prompt] += event.seconds

        await asyncio.gather(
            read(plan("guided", steps=20)), read(plan("plain", steps=20, guidance=1.0))
        )
        ticks = batcher.ticks
    # A reading of the clock is a second: one for each tick, each begin and each decode.
    assert math.fsum(seconds.values()) == pytest.approx(ticks + 2 + 1, abs=1)
    assert seconds["guided"] > seconds["plain"]


async def test_a_plan_without_pictures_ends_at_once() -> None:
    async with batching(ArithmeticModel()) as batcher:
        assert await drawn(batcher, replace(plan(), pictures=())) == []
