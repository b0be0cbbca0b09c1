"""Pictures from text of any OpenAI-compatible provider; see `atrium_diffusion.engines.openai`."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

import openai
from openai.types import ImagesResponse

from atrium_common.openai_upstream import broken
from atrium_diffusion.domain import PictureEvent, PictureMade, RequestPlan
from atrium_diffusion.engines.openai import OpenAIPictures


class OpenAIEngine(OpenAIPictures):
    """Passes prompts on to providers and their pictures back."""

    async def draw(self, plan: RequestPlan) -> AsyncGenerator[PictureEvent, None]:
        """Asks for all pictures at once; closing it closes the connection."""
        job, options = plan.job, self.options(plan.job.model)
        width, height = plan.pictures[0].width, plan.pictures[0].height

        def ask(client: openai.AsyncOpenAI) -> Awaitable[ImagesResponse]:
            return client.images.generate(
                model=options.model or job.model,
                prompt=job.prompt,
                n=job.n,
                size=f"{width}x{height}",
                quality=options.quality or openai.omit,  # type: ignore[arg-type]
                response_format=options.response_format or openai.omit,
            )

        async with aclosing(self.answered(job.model, ask, job.n)) as answers:
            index = 0
            async for pixels, seconds in answers:
                if pixels.shape[:2] != (height, width):
                    raise broken(job.model)
                yield PictureMade(index=index, pixels=pixels, seconds=seconds)
                index += 1
