"""Callers leave at every moment: nothing leaks, and each pays the steps that were taken."""

import asyncio
import random

from drawing_service import adapters, asked, entry, serving

from atrium_common.interceptors.metadata import REQUEST_ID
from atrium_common.testing import tenant_metadata
from atrium_common.testing.leaving import leave
from atrium_diffusion.testing.leaving import CountingEngine

CALLERS = 300
AT_ONCE = 24


async def test_300_callers_leave_at_random_and_each_pays_its_steps() -> None:
    chance = random.Random(5)  # noqa: S311 - no secret
    engine = CountingEngine([entry(seconds_per_step=0.001)], adapters=adapters())
    async with serving(engine=engine, max_requests=16) as service:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int) -> None:
            request = asked(
                n=chance.randint(1, 3),
                width=chance.choice((32, 64)),
                denoising={"seed": 100 * seed, "steps": chance.randint(1, 30)},
                preview={"interval": chance.choice((0, 5))},
            )
            metadata = (*tenant_metadata(), (REQUEST_ID, str(100 * seed)))
            async with gate:
                await leave(service.stub.GenerateImage(request, metadata=metadata), chance)

        await asyncio.gather(*(one(seed) for seed in range(CALLERS)))
        await service.idle()
        bookings = service.admission.bookings.values()
        for booking in bookings:
            await asyncio.wait_for(booking.closed.wait(), 10)
            seed = int(booking.request.request_id)
            usage = booking.usage
            paid = (usage.images, usage.millimegapixel_steps) if usage else (0, 0)
            assert paid == engine.work(seed)
            assert booking.closings == 1
        outcomes = [booking.outcome for booking in bookings]
        assert outcomes.count("CANCELLED") > 50
        assert outcomes.count("COMPLETED") > 50
        assert len((await service.draw()).pictures) == 1
