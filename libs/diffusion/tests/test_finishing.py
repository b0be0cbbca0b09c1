"""From an engine's events to the answer: counted, encoded, in order, and quick to let go."""

import asyncio
import hashlib
import io
import itertools
import json
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta

import numpy as np
import pytest
from picture_requests import ScriptedEvents, job, noise, plan
from PIL import Image

from atrium_common.chunks import CHUNK_BYTES
from atrium_common.domain import Usage
from atrium_common.errors import Overloaded
from atrium_common.images import ImageLimits, read_picture
from atrium_diffusion import finishing
from atrium_diffusion.answer import (
    Answer,
    EncodedPreview,
    PictureChunk,
    PictureEnd,
    PictureStart,
    Withheld,
)
from atrium_diffusion.domain import (
    OutputOptions,
    PictureEvent,
    PictureFormat,
    PictureMade,
    Pixels,
    PreviewMade,
    StepTaken,
)
from atrium_diffusion.finishing import MAX_PREVIEW_BYTES, Finisher
from atrium_diffusion.record import TEXT_KEY, PictureRecord

PNG = OutputOptions()
TWO = plan(n=2)


def step(index: int, number: int) -> StepTaken:
    return StepTaken(index=index, step=number, steps=3, seconds=0.25)


def steps(*indices: int) -> list[PictureEvent]:
    return [step(index, number) for number in (1, 2, 3) for index in indices]


def made(index: int, pixels: Pixels) -> PictureMade:
    return PictureMade(index=index, pixels=pixels, seconds=0.5)


def answers(
    events: ScriptedEvents,
    *,
    finisher: Finisher | None = None,
    output: OutputOptions = PNG,
    report: Callable[[Usage], None] = lambda usage: None,
) -> AsyncGenerator[Answer, None]:
    return (finisher or Finisher()).finish(
        TWO,
        events.stream(),
        output=output,
        engine="fake",
        queue_time=timedelta(seconds=2),
        report=report,
    )


async def collect(events: ScriptedEvents, **more: object) -> list[Answer]:
    return [answer async for answer in answers(events, **more)]  # type: ignore[arg-type]


def pictures(collected: list[Answer]) -> dict[int, bytes]:
    """The bytes of each picture; checks that nothing stands between start and end."""
    files: dict[int, bytes] = {}
    running: PictureStart | None = None
    for answer in collected:
        match answer.step:
            case PictureStart() as start:
                assert running is None
                running, files[start.index] = start, b""
            case PictureChunk() as chunk:
                assert running is not None
                assert running.index == chunk.index
                files[chunk.index] += chunk.data
            case PictureEnd() as end:
                assert running is not None
                assert running.index == end.index
                assert running.size == end.size == len(files[end.index])
                assert end.sha256 == hashlib.sha256(files[end.index]).digest()
                running = None
            case _:
                assert running is None
    assert running is None
    return files


async def test_every_message_carries_what_was_consumed_so_far() -> None:
    reported: list[Usage] = []
    events = ScriptedEvents([*steps(0, 1), made(1, noise(64, 64)), made(0, noise(64, 64))])
    collected = await collect(events, report=reported.append)
    usages = [answer.usage for answer in collected]
    for one, following in itertools.pairwise(usages):
        assert following.images >= one.images
        assert following.millimegapixel_steps >= one.millimegapixel_steps
        assert following.inference_time >= one.inference_time
    assert usages[-1] == reported[-1]
    assert usages[-1] == Usage(
        model="squares",
        engine="fake",
        queue_time=timedelta(seconds=2),
        inference_time=timedelta(seconds=2.5),
        images=2,
        millimegapixel_steps=25,  # 6 x 64 x 64 pixels in thousands, rounded up
    )
    assert [usage.millimegapixel_steps for usage in reported] == [5, 9, 13, 17, 21, 25, 25, 25]
    assert [usage.images for usage in reported] == [0] * 6 + [1, 2]


async def test_pictures_follow_one_another_whole() -> None:
    first, second = noise(200, 200), noise(200, 200, seed=1)
    events = ScriptedEvents([*steps(0), made(0, first), *steps(1), made(1, second)])
    collected = await collect(events)
    for index, data in pictures(collected).items():
        picture = read_picture(data, limits=ImageLimits(), field="image")
        assert np.array_equal(picture.pixels, (first, second)[index])
    chunks = [answer.step for answer in collected if isinstance(answer.step, PictureChunk)]
    lengths = [len(chunk.data) for chunk in chunks if chunk.index == 0]
    assert lengths[:-1] == [CHUNK_BYTES] * (len(lengths) - 1)
    assert len(lengths) > 1


@pytest.mark.parametrize("kind", PictureFormat)
async def test_a_picture_is_encoded_as_asked(kind: PictureFormat) -> None:
    quality = None if kind is PictureFormat.PNG else 70
    events = ScriptedEvents([made(0, noise(64, 64))])
    collected = await collect(events, output=OutputOptions(format=kind, quality=quality))
    start = collected[0].step
    assert isinstance(start, PictureStart)
    assert start.format is kind
    with Image.open(io.BytesIO(pictures(collected)[0])) as image:
        assert image.format == kind.name


@pytest.mark.parametrize("embed", [False, True])
async def test_the_record_says_what_made_it_and_stands_in_the_file_when_asked(embed: bool) -> None:
    events = ScriptedEvents([made(1, noise(64, 64))])
    collected = await collect(events, output=OutputOptions(embed_record=embed))
    start = collected[0].step
    assert isinstance(start, PictureStart)
    assert start.record == PictureRecord.of(TWO, TWO.pictures[1])
    assert start.record.seed == 8
    with Image.open(io.BytesIO(pictures(collected)[1])) as image:
        image.load()
        told = image.info.get(TEXT_KEY)
    assert (told is not None) is embed
    if told is not None:
        assert json.loads(told)["prompt"] == "a red circle"


async def test_a_preview_is_a_small_jpeg() -> None:
    events = ScriptedEvents([step(0, 1), PreviewMade(index=0, step=1, pixels=noise(512, 512))])
    *_, last = await collect(events)
    assert isinstance(last.step, EncodedPreview)
    assert (last.step.index, last.step.step) == (0, 1)
    assert len(last.step.jpeg) <= MAX_PREVIEW_BYTES
    with Image.open(io.BytesIO(last.step.jpeg)) as image:
        assert image.size == (512, 512)


async def test_a_slow_reader_does_not_hold_up_the_engine() -> None:
    told: list[PictureEvent] = []
    for number in (1, 2, 3):
        for index in (0, 1):
            view = np.full((8, 8, 3), 80 * number, np.uint8)
            told += [step(index, number), PreviewMade(index=index, step=number, pixels=view)]
    events = ScriptedEvents([*told, made(0, noise(64, 64)), made(1, noise(64, 64))])
    reported: list[Usage] = []
    async with aclosing(answers(events, report=reported.append)) as stream:
        first = await anext(stream)
        await events.closed.wait()  # all was told, one message was read
        assert reported[-1].millimegapixel_steps == 25
        assert reported[-1].images == 2
        rest = [answer async for answer in stream]
    assert first.step == step(0, 1)
    # Previews that nobody read in time are dropped; steps and pictures are not.
    views = [answer.step for answer in rest if isinstance(answer.step, EncodedPreview)]
    assert [(view.index, view.step) for view in views] == [(0, 3), (1, 3)]
    assert sum(isinstance(answer.step, StepTaken) for answer in rest) == 5
    assert set(pictures(rest)) == {0, 1}
    assert all(answer.usage == reported[-1] for answer in rest)


@pytest.mark.parametrize("reads", [0, 1, 4])
async def test_a_reader_that_leaves_closes_the_engine(reads: int) -> None:
    events = ScriptedEvents(steps(0, 1), endless=True)
    reported: list[Usage] = []
    stream = answers(events, report=reported.append)
    for _ in range(reads):
        await anext(stream)
    await stream.aclose()
    assert events.closed.is_set() or not reads
    assert events.told == len(reported)


async def test_a_cancelled_reader_closes_the_engine_though_a_picture_is_being_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> bytes:
        encoding.set()
        go_on.wait(30)
        return b"late"

    monkeypatch.setattr(finishing, "encode", slow)
    events = ScriptedEvents([made(0, noise(8, 8))], endless=True)
    reading = asyncio.create_task(collect(events))
    try:
        assert await asyncio.to_thread(encoding.wait, 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert events.closed.is_set()
        assert not go_on.is_set()
    finally:
        go_on.set()


async def test_encoding_leaves_the_loop_free_and_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, arrived, go_on = threading.Lock(), threading.Semaphore(0), threading.Event()
    running, most = 0, 0

    def slow(*_: object, **__: object) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        arrived.release()
        go_on.wait(30)
        with lock:
            running -= 1
        return b"file"

    monkeypatch.setattr(finishing, "encode", slow)
    finisher = Finisher(encoders=2)
    requests = [
        asyncio.create_task(collect(ScriptedEvents([made(0, noise(8, 8))]), finisher=finisher))
        for _ in range(5)
    ]
    for _ in range(2):
        assert await asyncio.to_thread(arrived.acquire, True, 30)
    assert not any(request.done() for request in requests)  # and the loop runs
    go_on.set()
    for collected in await asyncio.gather(*requests):
        assert pictures(collected) == {0: b"file"}
    assert most == 2


async def test_what_the_engine_raises_comes_after_what_it_told() -> None:
    events = ScriptedEvents(steps(0), failure=Overloaded("No memory."))
    stream = answers(events)
    told = [(await anext(stream)).step for _ in range(3)]
    assert told == steps(0)
    with pytest.raises(Overloaded, match=r"No memory\."):
        await anext(stream)


class RedIsUnsafe:
    """Finds red pictures unsafe."""

    async def unsafe(self, pixels: Pixels) -> bool:
        """Looks at the mean colour."""
        red, green, _ = pixels.mean(axis=(0, 1))
        return bool(red > 2 * green + 10)


async def test_an_unsafe_picture_is_withheld_and_charged() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    grey = np.full((64, 64, 3), 90, np.uint8)
    events = ScriptedEvents(
        [
            *steps(0, 1),
            PreviewMade(index=0, step=3, pixels=red),
            PreviewMade(index=1, step=3, pixels=grey),
            made(0, red),
            made(1, grey),
        ]
    )
    collected = await collect(events, finisher=Finisher(safety=RedIsUnsafe()))
    files = pictures(collected)
    starts = {
        answer.step.index: answer.step
        for answer in collected
        if isinstance(answer.step, PictureStart)
    }
    assert starts[0].withheld is Withheld.UNSAFE
    assert starts[0].size == 0
    assert starts[0].record.seed == 7
    assert files[0] == b""
    assert starts[1].withheld is None
    assert files[1]
    shown = [answer.step.index for answer in collected if isinstance(answer.step, EncodedPreview)]
    assert shown == [1]
    assert collected[-1].usage.images == 2
    assert collected[-1].usage.millimegapixel_steps == 25


async def test_an_engine_that_leaves_a_step_untold_has_taken_it() -> None:
    collected = await collect(ScriptedEvents([step(0, 3)]))
    assert collected[-1].usage.millimegapixel_steps == 13


def test_a_record_is_json_in_ascii() -> None:
    odd = plan(prompt="ein schöner \U0001f7e2 \n\0 Kreis")
    text = PictureRecord.of(odd, odd.pictures[0]).to_json()
    assert text.isascii()
    told = json.loads(text)
    assert told["prompt"] == job(prompt="ein schöner \U0001f7e2 \n\0 Kreis").prompt
    assert told["scheduler"] == "euler"
    assert told["schedule_steps"] == told["steps"] == 3
