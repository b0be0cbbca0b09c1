"""An engine that knows what each of its callers must pay; for tests of those who leave."""

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
