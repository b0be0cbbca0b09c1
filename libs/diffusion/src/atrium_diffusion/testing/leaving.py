"""Callers who leave at any moment, and an engine that knows what each of them must pay."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from atrium_diffusion.domain import PictureEvent, PictureMade, RequestPlan, StepTaken, counted
from atrium_diffusion.engines.fake import FakeEngine


class CountingEngine(FakeEngine):
    """Counts the work of each request, which its seed tells from the others.

    Attributes:
        pixel_steps: By seed.
        images: Finished pictures, by seed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pixel_steps: Counter[int] = Counter()
        self.images: Counter[int] = Counter()

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Draws and counts."""
        seed = plan.pictures[0].seed
        async with aclosing(super().draw(plan)) as events:
            async for event in events:
                if isinstance(event, StepTaken):
                    picture = plan.pictures[event.index]
                    self.pixel_steps[seed] += picture.width * picture.height
                elif isinstance(event, PictureMade):
                    self.images[seed] += 1
                yield event

    def work(self, seed: int) -> tuple[int, int]:
        """Returns the pictures and thousandths of megapixel-steps of a request."""
        return self.images[seed], counted(self.pixel_steps[seed])


async def leave(call: Any, chance: random.Random) -> None:
    """Leaves a call after some messages or some time, or stays to its end."""
    way = chance.choice(("messages", "time", "stay"))
    messages = chance.randint(0, 40) if way == "messages" else 10_000
    patience = chance.uniform(0, 0.1) if way == "time" else None
    answers = aiter(call)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(patience):
            while messages and await anext(answers, None) is not None:
                messages -= 1
    call.cancel()
