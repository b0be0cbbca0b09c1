"""What all picture endpoints share: the jobs, and pictures as their pieces come."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.picture_bounds import drawing_bound, edit_bound, known_sizes
from atrium_gateway.api.picture_schema import MAX_PICTURES, LoraChoice, PictureOptions
from atrium_gateway.api.picture_uploads import Sources
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job, Run
from atrium_gateway.upstreams.img2img import EDIT
from atrium_gateway.upstreams.pictures import (
    Begun,
    Denoising,
    Drawing,
    Edit,
    End,
    Lora,
    Start,
    Step,
)
from atrium_gateway.upstreams.text2image import GENERATE

CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def resolve(exchange: Exchange, name: str | None, capability: Capability) -> ModelEntry:
    """Finds the model that a request means."""
    entry = exchange.gateway.resolve(name or "", capability)
    exchange.record.model = entry.id
    return entry


def denoising_of(options: PictureOptions, *, steps: int | None) -> Denoising:
    """How pictures are denoised by what was asked for, and `steps`."""
    return Denoising(
        steps=steps,
        guidance_scale=options.guidance_scale,
        scheduler=options.scheduler or "",
        seed=options.seed,
        loras=[_lora(choice) for choice in options.loras],
        deterministic=options.deterministic,
    )


def drawing_job(exchange: Exchange, drawing: Drawing, entry: ModelEntry) -> Job[Step]:
    """Makes the job of drawing pictures."""
    return Job(
        capability=Capability.TEXT_TO_IMAGE,
        model=drawing.model,
        method=GENERATE,
        estimate=drawing_bound(drawing, known_sizes(entry)),
        call=lambda caller: exchange.gateway.text2image.draw(drawing, caller),
    )


def edit_job(exchange: Exchange, edit: Edit, sources: Sources, entry: ModelEntry) -> Job[Step]:
    """Makes the job of editing pictures.

    Raises:
        InvalidArgument: It would make too many pictures.
    """
    if len(sources.images) * edit.n > MAX_PICTURES:
        raise InvalidArgument(
            f"{edit.n} for each of {len(sources.images)} pictures are more than the "
            f"{MAX_PICTURES} that a request makes.",
            field="n",
        )
    return Job(
        capability=Capability.IMAGE_TO_IMAGE,
        model=edit.model,
        method=EDIT,
        estimate=edit_bound(edit, len(sources.images), known_sizes(entry)),
        call=lambda caller: exchange.gateway.img2img.edit(
            edit, sources.images, sources.mask, caller
        ),
    )


def size_text(sizes: Sequence[tuple[int, int]]) -> str | None:
    """Writes a size as OpenAI does, ``"1024x1024"``; ``None`` if there are several."""
    different = set(sizes)
    if len(different) != 1:
        return None
    ((width, height),) = different
    return f"{width}x{height}"


@dataclass(slots=True)
class Picture:
    """A picture: what made it, its file, the file's SHA-256 in hex."""

    start: Start
    data: bytearray = field(default_factory=bytearray)
    sha256: str = ""


@dataclass(slots=True)
class Gallery:
    """The pictures of one answer, put together of its steps; keeps none that is finished."""

    begun: Begun | None = None
    finished: int = 0
    withheld: int = 0
    _open: Picture | None = None

    def add(self, step: Step) -> Picture | None:
        """Takes the next message; gives the picture that it finished.

        Raises:
            Unavailable: The service's messages do not fit together.
        """
        if isinstance(step, bytes) and self._open is not None:
            self._open.data += step
        elif isinstance(step, Start) and self._open is None:
            self._open = Picture(step)
        elif isinstance(step, End) and self._open is not None:
            return self._close(self._open, step)
        elif isinstance(step, Begun):
            self.begun = step
        elif isinstance(step, bytes | Start | End):
            raise Unavailable("The service's answer is out of order.")
        return None

    def check(self) -> None:
        """Sees, after the last message, that all pictures came and one may be sent.

        Raises:
            Unavailable: The service ended before all pictures were there.
            InvalidArgument: All of them are withheld (`CONTENT_POLICY_VIOLATION`).
        """
        if self.begun is None or self._open or self.finished < self.begun.count:
            raise Unavailable("The service ended before all pictures were there.")
        if self.withheld and self.withheld == self.finished:
            raise InvalidArgument(
                "What was drawn is withheld: this installation's safety check refused it.",
                reason="CONTENT_POLICY_VIOLATION",
            )

    def _close(self, picture: Picture, end: End) -> Picture:
        if not len(picture.data) == end.size == picture.start.size:
            raise Unavailable("A picture arrived incomplete.")
        self._open = None
        self.finished += 1
        self.withheld += bool(picture.start.withheld)
        picture.sha256 = end.sha256
        return picture


async def drawn(
    exchange: Exchange, principal: Principal, job: Job[Step]
) -> tuple[Run[Step], list[Picture]]:
    """Runs a job to its end; gives it, settled, and its pictures by index.

    Raises:
        Unavailable: The service ended before all pictures were there.
        InvalidArgument: All of them are withheld.
    """
    gallery = Gallery()
    pictures: list[Picture] = []
    async with exchange.gateway.pipeline.run(
        principal, job, request_id=exchange.record.request_id
    ) as run:
        async for step in run:
            if picture := gallery.add(step):
                pictures.append(picture)
    gallery.check()
    return run, sorted(pictures, key=lambda picture: picture.start.index)


def _lora(choice: LoraChoice | str) -> Lora:
    if isinstance(choice, LoraChoice):
        return Lora(id=choice.id, scale=choice.scale)
    name, _, scale = choice.partition(":")
    return Lora(id=name, scale=float(scale) if scale else None)
