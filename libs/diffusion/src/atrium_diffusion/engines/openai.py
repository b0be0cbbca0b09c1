"""What the `openai` engines of both picture services share: keys, limits, refusals, answers.

The images API of any OpenAI-compatible provider is an engine like every other, so that
queue, limits and ledger treat its models like our own. A provider says nothing of steps,
schedulers and seeds: what it can't honour is refused by name, and its pictures count as
pictures, not as steps.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

import openai
from openai.types import ImagesResponse

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.errors import InvalidArgument, MediaError
from atrium_common.images import ImageLimits, read_picture
from atrium_common.lifecycle import Lifecycle
from atrium_common.openai_upstream import broken, from_openai_error
from atrium_common.provider_engine import ProviderEngine
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import (
    ModelLimits,
    PictureJob,
    PicturePlan,
    Pixels,
    RequestPlan,
)
from atrium_diffusion.engines.openai_options import OpenAIPictureOptions

_FIELDS = {
    "prompt": "prompt",
    "n": "n",
    "size": "width",
    "image": "image_chunk",
    "mask": "mask_chunk",
    "model": "model",
}
"""The provider's names of what a caller of ours gave, and ours."""
_NO_LIST = (404, 405, 501)
"""What servers answer that have no list of models."""


class OpenAIPictures(ProviderEngine[OpenAIPictureOptions]):
    """The part of a picture engine over a provider that both services use."""

    options_type = OpenAIPictureOptions

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        adapters: Sequence[AdapterEntry] = (),
        lifecycle: Lifecycle | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Takes the catalogue's entries; there are no weights, so the rest is unused.

        Raises:
            CatalogueError: An option of a model does not hold.
        """
        del adapters
        super().__init__(entries, store=store, lifecycle=lifecycle)
        self._clock = clock

    async def verify(self, model: str) -> None:
        """Asks the provider for its list of models, because a picture costs money.

        A server without such a list is taken at its word.
        """
        client = self.client(model)
        with self.translated(model, client):
            try:
                await client.models.list()
            except openai.APIStatusError as error:
                if error.status_code not in _NO_LIST:
                    raise

    def limits(self, model: str) -> ModelLimits:
        """Tells the range of the provider's sizes; of steps it says nothing."""
        options = self.options(model)
        width, height = options.dimensions[0]
        sides = [side for size in options.dimensions for side in size]
        return ModelLimits(
            model=model,
            native_width=width,
            native_height=height,
            min_side=min(sides),
            max_side=max(sides),
            max_pixels=max(wide * high for wide, high in options.dimensions),
            default_steps=0,
            default_guidance_scale=0.0,
            default_scheduler=None,
        )

    def check_ready(self, model: str) -> None:
        """Refuses a model without a key."""
        self.client(model)

    def plan(self, job: PictureJob) -> RequestPlan:
        """Refuses what the images API has no word for; see `PictureEngine.plan`."""
        options = self.options(job.model)
        for field in _unheard(job):
            raise InvalidArgument(
                f"The model {job.model!r} does not support {field}.",
                reason="UNSUPPORTED_PARAMETER",
                field=field,
            )
        if job.n > options.max_images:
            raise InvalidArgument(
                f"The model {job.model!r} makes at most {options.max_images} pictures.", field="n"
            )
        job = replace(job, prompt=_prompt(job, options.max_prompt_characters))
        return RequestPlan(
            job=job,
            pictures=tuple(self._pictures(job)),
            schedule_steps=0,
            guidance_scale=0.0,
            scheduler=None,
            engine=f"{self.name} {options.model or job.model}",
        )

    def _pictures(self, job: PictureJob) -> Iterator[PicturePlan]:
        if not job.sources:
            width, height = self._size(job)
            for index in range(job.n):
                yield PicturePlan(index=index, width=width, height=height, seed=0, steps=0)
        for index in range(len(job.sources) * job.n):
            source = job.sources[index // job.n]
            height, width = source.pixels.shape[:2]
            yield PicturePlan(
                index=index, width=width, height=height, seed=0, steps=0, source=source
            )

    def _size(self, job: PictureJob) -> tuple[int, int]:
        options = self.options(job.model)
        native_width, native_height = options.dimensions[0]
        size = (job.width or native_width, job.height or native_height)
        if size not in options.dimensions:
            raise InvalidArgument(
                f"The sizes of {job.model!r} are {', '.join(options.sizes)}.",
                field="width" if job.width else "height",
            )
        return size

    @contextmanager
    def translated(self, model: str, client: openai.AsyncOpenAI) -> Iterator[None]:
        """Turns the client library's errors into ours."""
        try:
            yield
        except openai.OpenAIError as error:
            raise from_openai_error(
                error, model=model, secret=client.api_key, field_of=_FIELDS.get
            ) from error

    async def answered(
        self, model: str, asking: Callable[[openai.AsyncOpenAI], Awaitable[ImagesResponse]], n: int
    ) -> AsyncGenerator[tuple[Pixels, float], None]:
        """Asks for `n` pictures and decodes them, each with its share of the time it took.

        Raises:
            AtriumError: The provider refused, failed, or did not answer with pictures.
        """
        client = self.client(model)
        began = self._clock()
        with self.translated(model, client):
            answer = await asking(client)
        seconds = (self._clock() - began) / n
        images = _encoded(answer)
        for image in images[:n]:
            yield await self._decoded(model, image), seconds
        if len(images) < n:
            raise broken(model)

    async def _decoded(self, model: str, image: str) -> Pixels:
        options = self.options(model)
        try:
            return await asyncio.to_thread(_decode, image, options.max_answer_pixels)
        except (binascii.Error, ValueError, MediaError) as error:
            raise broken(model) from error


def _unheard(job: PictureJob) -> Iterator[str]:
    """Names the fields whose values a provider would never hear of."""
    asked = job.denoising
    given = {
        "negative_prompt": bool(job.negative_prompt),
        "denoising.steps": asked.steps is not None,
        "denoising.guidance_scale": asked.guidance_scale is not None,
        "denoising.scheduler": asked.scheduler is not None,
        "denoising.seed": asked.seed is not None,
        "denoising.loras": bool(asked.loras),
        "denoising.deterministic": asked.deterministic,
        "preview.interval": bool(job.preview.interval),
        "priority": bool(job.priority),
    }
    return (field for field, is_given in given.items() if is_given)


def _prompt(job: PictureJob, most: int) -> str:
    if len(job.prompt) <= most or job.truncate_prompt:
        return job.prompt[:most]
    raise InvalidArgument(
        f"The model {job.model!r} takes prompts of at most {most} characters.",
        reason="PROMPT_TOO_LONG",
        field="prompt",
    )


def _encoded(answer: object) -> list[str]:
    """Returns the pictures in base64; none where the answer is something else."""
    data = getattr(answer, "data", None)
    images = [getattr(item, "b64_json", None) for item in data] if isinstance(data, list) else []
    return [image for image in images if isinstance(image, str)]


def _decode(image: str, max_pixels: int) -> Pixels:
    data = base64.b64decode(image, validate=True)
    limits = ImageLimits(max_bytes=len(data), max_pixels=max_pixels)
    return read_picture(data, limits=limits, field="").opaque()
