"""From an engine's events to what a caller is sent: checked, encoded, recorded, counted.

The servicers of both picture services call this with a plan and the engine's events.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from atrium_common.chunks import split
from atrium_common.domain import Usage
from atrium_common.images import encode, encode_within
from atrium_diffusion.answer import (
    Answer,
    AnswerStep,
    EncodedPreview,
    PictureChunk,
    PictureEnd,
    PictureStart,
    Withheld,
)
from atrium_diffusion.domain import (
    OutputOptions,
    PictureEvent,
    PictureMade,
    Pixels,
    PreviewMade,
    RequestPlan,
    StepTaken,
)
from atrium_diffusion.intake import EventIntake
from atrium_diffusion.meter import PictureMeter
from atrium_diffusion.record import TEXT_KEY, PictureRecord
from atrium_diffusion.safety import SafetyCheck

MAX_PREVIEW_BYTES = 64 * 1024
"""Of an encoded preview."""

T = TypeVar("T")


class Finisher:
    """Finishes requests; all requests of a service share its encoding threads."""

    def __init__(self, *, safety: SafetyCheck | None = None, encoders: int = 2) -> None:
        """Starts nothing yet.

        Args:
            safety: Looks at finished pictures and previews; ``None`` lets all pass.
            encoders: Pictures that are encoded at once, 1 or more.
        """
        self._safety = safety
        self._threads = ThreadPoolExecutor(encoders, thread_name_prefix="picture-encoder")

    async def finish(
        self,
        plan: RequestPlan,
        events: AsyncIterator[PictureEvent],
        *,
        output: OutputOptions,
        engine: str,
        queue_time: timedelta = timedelta(),
        report: Callable[[Usage], None] = lambda usage: None,
    ) -> AsyncGenerator[Answer, None]:
        """Turns the events of a request into its answer.

        Closing it closes `events` at once. A slow reader holds up nobody: the engine is
        read on, and only the latest preview of each picture waits for the reader.

        Args:
            plan: The request.
            events: `PictureEngine.draw` of it.
            output: How pictures are encoded.
            engine: Registry name of the engine, for the usage.
            queue_time: How long the request waited for its place.
            report: Told of the usage whenever it grows, which may be long before a slow
                caller reads of it.

        Yields:
            Steps and previews as they come; each finished picture as a start, its chunks
            and its end, with nothing between them. A withheld picture has no chunks.

        Raises:
            AtriumError: What the engine or the safety check raises.
        """
        meter = PictureMeter(plan, engine=engine, queue_time=queue_time)

        def taken(event: PictureEvent) -> None:
            meter.count(event)
            report(meter.usage())

        async with EventIntake(events, taken=taken) as intake:
            while (event := await intake.next()) is not None:
                for step in await self._steps(plan, event, output):
                    yield Answer(step=step, usage=meter.usage())

    async def _steps(
        self, plan: RequestPlan, event: PictureEvent, output: OutputOptions
    ) -> Iterator[AnswerStep]:
        match event:
            case StepTaken():
                return iter((event,))
            case PreviewMade():
                if await self._unsafe(event.pixels):
                    return iter(())
                return iter((await self._off_loop(lambda: _preview(event)),))
            case PictureMade():
                record = PictureRecord.of(plan, plan.pictures[event.index])
                if await self._unsafe(event.pixels):
                    return _withheld(event.index, output, record)
                data = await self._off_loop(lambda: _encode(event.pixels, output, record))
                return _picture(event.index, output, record, data)

    async def _unsafe(self, pixels: Pixels) -> bool:
        return self._safety is not None and await self._safety.unsafe(pixels)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _preview(event: PreviewMade) -> EncodedPreview:
    jpeg = encode_within(event.pixels, max_bytes=MAX_PREVIEW_BYTES)
    return EncodedPreview(index=event.index, step=event.step, jpeg=jpeg)


def _encode(pixels: Pixels, output: OutputOptions, record: PictureRecord) -> tuple[bytes, bytes]:
    """Returns a picture's file and its digest."""
    data = encode(
        pixels,
        output.format,
        quality=output.quality,
        text={TEXT_KEY: record.to_json()} if output.embed_record else {},
    )
    return data, hashlib.sha256(data).digest()


def _picture(
    index: int, output: OutputOptions, record: PictureRecord, data: tuple[bytes, bytes]
) -> Iterator[AnswerStep]:
    encoded, digest = data
    size = len(encoded)
    yield PictureStart(index=index, format=output.format, size=size, record=record)
    for piece in split(encoded):
        yield PictureChunk(index=index, data=piece)
    yield PictureEnd(index=index, sha256=digest, size=size)


def _withheld(index: int, output: OutputOptions, record: PictureRecord) -> Iterator[AnswerStep]:
    yield PictureStart(
        index=index, format=output.format, size=0, record=record, withheld=Withheld.UNSAFE
    )
    yield PictureEnd(index=index, sha256=hashlib.sha256().digest(), size=0)
