"""Callers leave at every moment: nothing leaks, and each pays what was done."""

import asyncio
import random
import threading
import time
from typing import Any

from seeing_service import METHODS, Serve, asked, reader, tiff, vision, work_of

from atrium_common.interceptors.metadata import REQUEST_ID
from atrium_common.testing import tenant_metadata
from atrium_common.testing.leaving import leave
from atrium_img2text.testing.documents import many_pages

CALLERS = 300
AT_ONCE = 24
FILES = [tiff(pages) for pages in (1, 2, 6)]


def fields(method: str, chance: random.Random) -> dict[str, Any]:
    """Returns what a caller asks for, more or less of it."""
    asked_for: dict[str, dict[str, Any]] = {
        "DescribeImage": {"n": chance.randint(1, 3), "sampling": {"beams": 3}},
        "AnswerQuestion": {"question": "word " * chance.randint(1, 60)},
        "ExtractText": {"document_format": chance.randint(0, 4)},
    }
    if method != "AnalyzeImage":
        return asked_for[method]
    return {
        "description": asked_for["DescribeImage"],
        "questions": [asked_for["AnswerQuestion"]] * chance.randint(0, 2),
        "extraction": asked_for["ExtractText"],
    }


async def test_300_callers_leave_at_random_and_each_pays_what_was_done(serve: Serve) -> None:
    chance = random.Random(8)  # noqa: S311 - no secret
    entries = vision(seconds_per_step=0.001, slots=8), reader(seconds_per_page=0.01, slots=8)
    async with serve(*entries) as service:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            method = list(METHODS)[number % len(METHODS)]
            requests = asked(method, chance.choice(FILES), **fields(method, chance))
            metadata = (*tenant_metadata(), (REQUEST_ID, str(number)))
            async with gate:
                await leave(service.call(method, requests, metadata), chance)

        await asyncio.gather(*(one(number) for number in range(CALLERS)))
        await service.idle()
        bookings = service.admission.bookings.values()
        for booking in bookings:
            await asyncio.wait_for(booking.closed.wait(), 10)
            assert work_of(booking.usage) == service.engine.work(booking.request.request_id)
            if booking.usage_by_model:
                parts = zip(*map(work_of, booking.usage_by_model), strict=True)
                assert tuple(map(sum, parts)) == work_of(booking.usage)
            assert booking.closings == 1
        outcomes = [booking.outcome for booking in bookings]
        assert outcomes.count("CANCELLED") > 30
        assert outcomes.count("COMPLETED") > 50
        assert await service.ask("AnalyzeImage")


async def test_callers_who_leave_take_processes_and_threads_with_them(serve: Serve) -> None:
    chance = random.Random(9)  # noqa: S311 - no secret
    data = many_pages(4)
    async with serve(vision(), reader(seconds_per_page=0.05, slots=2)) as service:
        await service.ask("ExtractText", data, max_pages=1)
        # The loop's own threads come as they are needed and stay.
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for _ in range(40)))
        threads = threading.active_count()
        for _ in range(6):
            call = service.call("ExtractText", asked("ExtractText", data, resolution=72))
            await asyncio.sleep(chance.uniform(0, 0.6))
            call.cancel()
        await service.idle()
        assert service.servicer.queues["drawing"].running == 0
        assert threading.active_count() <= threads + service.intake.limits.documents.max_workers
