"""`POST /v1/images/generations` and `/v1/images/edits`, as OpenAI's clients ask for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError, InvalidArgument
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.images_answer import Shown, reply, stream
from atrium_gateway.api.images_schema import ImageEditForm, ImageEditJson, ImageRequest
from atrium_gateway.api.picture_bounds import known_sizes, steps_taken
from atrium_gateway.api.picture_schema import MAX_PREVIEW_INTERVAL, MAX_STEPS
from atrium_gateway.api.picture_uploads import Sources, data_url, decoded_sources, picture_form
from atrium_gateway.api.pictures import denoising_of, drawing_job, edit_job, resolve
from atrium_gateway.api.uploads import media_type
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.upstreams.pictures import Drawing, Edit, Output, Previews, Step

DrawingT = TypeVar("DrawingT", bound=Drawing)

_QUALITY_STEPS = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 3.0}
"""Steps by quality, times the model's default; the other names take the default."""
_NAMES = {
    "width": "size",
    "height": "size",
    "format": "output_format",
    "quality": "output_compression",
    "preview_interval": "partial_images",
}
"""Fields of the services under the names that they have here."""


async def create_image(exchange: Exchange) -> None:
    """Draws pictures from text."""
    principal = await exchange.authenticate()
    request = decode(await exchange.json_body(), ImageRequest)
    entry = resolve(exchange, request.model, Capability.TEXT_TO_IMAGE)
    drawing = _with_previews(_drawing(request, entry), request, entry)
    job = drawing_job(exchange, drawing, entry)
    await _answer(exchange, principal, job, request, kind="image_generation")


async def edit_image(exchange: Exchange) -> None:
    """Draws pictures from pictures; a mask says where."""
    principal = await exchange.authenticate()
    async with _received(exchange) as (sources, request):
        entry = resolve(exchange, request.model, Capability.IMAGE_TO_IMAGE)
        drawing = _drawing(request, entry)
        strength = request.strength
        if strength is None and sources.mask is not None:
            strength = 1.0  # what the mask shows is replaced, as OpenAI's models do
        edit = Edit(
            **msgspec.structs.asdict(drawing),
            strength=strength,
            mask_blur=request.mask_blur,
            # A size that is asked for is the size that is given.
            resize_mode=request.resize_mode or ("crop" if drawing.width else "fit"),
        )
        job = edit_job(exchange, _with_previews(edit, request, entry), sources, entry)
        await _answer(exchange, principal, job, request, kind="image_edit")


async def _answer(
    exchange: Exchange,
    principal: Principal,
    job: Job[Step],
    request: ImageRequest,
    *,
    kind: str,
) -> None:
    shown = Shown.of(request, created=int(exchange.gateway.now().timestamp()))
    try:
        async with exchange.until_disconnect():
            if request.stream:
                await stream(exchange, principal, job, shown, kind=kind)
            else:
                await reply(exchange, principal, job, shown)
    except AtriumError as err:
        err.field = _NAMES.get(err.field or "", err.field)
        raise


@asynccontextmanager
async def _received(exchange: Exchange) -> AsyncIterator[tuple[Sources, ImageEditForm]]:
    if media_type(exchange) == JSON:
        body = decode(await exchange.json_body(), ImageEditJson)
        images = [data_url(one.image_url, field="images") for one in body.images]
        mask = data_url(body.mask.image_url, field="mask") if body.mask else None
        yield decoded_sources(exchange, images, mask), body
    else:
        async with picture_form(exchange) as (sources, fields):
            yield sources, convert(fields, ImageEditForm)


def _drawing(request: ImageRequest, entry: ModelEntry) -> Drawing:
    if request.response_format == "url":
        raise InvalidArgument(
            "Pictures come in the answer itself, nothing is kept to be fetched by URL: "
            "take 'response_format' 'b64_json'.",
            field="response_format",
        )
    if request.partial_images and not request.stream:
        raise InvalidArgument("'partial_images' needs 'stream'.", field="partial_images")
    size = request.size or "auto"
    width, height = (0, 0) if size == "auto" else map(int, size.split("x"))
    return Drawing(
        model=entry.id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=width,
        height=height,
        n=request.n or 1,
        denoising=denoising_of(request, steps=_steps(request, entry)),
        output=_output(request),
        priority=request.priority,
        truncate_prompt=request.truncate_prompt,
    )


def _steps(request: ImageRequest, entry: ModelEntry) -> int | None:
    factor = _QUALITY_STEPS.get(request.quality or "")
    if request.steps is not None or factor is None:
        return request.steps
    usual = known_sizes(entry).default_steps
    if usual is None:
        raise InvalidArgument(
            f"The model {entry.id!r} has one quality; leave 'quality' out.", field="quality"
        )
    return max(1, min(MAX_STEPS, round(usual * factor)))


def _output(request: ImageRequest) -> Output:
    file_format = request.output_format or "png"
    quality = request.output_compression
    if file_format == "png" and quality is not None:
        if quality != 100:
            raise InvalidArgument(
                "PNG is lossless: 'output_compression' is for jpeg and webp.",
                field="output_compression",
            )
        quality = None
    return Output(
        format=file_format,
        quality=None if quality is None else max(1, quality),
        embed_record=request.embed_record,
    )


def _with_previews(drawing: DrawingT, request: ImageRequest, entry: ModelEntry) -> DrawingT:
    """Spreads the partial images that are asked for over the steps."""
    wanted = request.partial_images or 0
    if not wanted:
        return drawing
    steps = steps_taken(drawing, known_sizes(entry))
    interval = min(MAX_PREVIEW_INTERVAL, steps // (wanted + 1))
    previews = Previews(interval=max(1, interval))
    return msgspec.structs.replace(drawing, previews=previews)
