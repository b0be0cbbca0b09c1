"""`POST /api/image-to-image`: pictures from pictures, with everything that made them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from atrium_common.domain import Capability
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.picture_answers import Wanted, answer
from atrium_gateway.api.picture_schema import ImageToImageForm, ImageToImageJson
from atrium_gateway.api.picture_uploads import Sources, decoded_sources, picture_form
from atrium_gateway.api.pictures import edit_job, resolve
from atrium_gateway.api.text_to_image import drawing_of
from atrium_gateway.api.uploads import media_type
from atrium_gateway.upstreams.pictures import Edit


async def create_image_to_image(exchange: Exchange) -> None:
    """Edits pictures that come in a form or in JSON: as JSON, as a file, or as events."""
    principal = await exchange.authenticate()
    async with _received(exchange) as (sources, request):
        entry = resolve(exchange, request.model, Capability.IMAGE_TO_IMAGE)
        wanted = Wanted.of(exchange, request, uploads=len(sources.images))
        edit = Edit(
            **msgspec.structs.asdict(drawing_of(request, entry, wanted)),
            strength=request.strength,
            mask_blur=request.mask_blur,
            resize_mode=request.resize_mode or "fit",
        )
        job = edit_job(exchange, edit, sources, entry)
        await answer(exchange, principal, job, wanted=wanted)


@asynccontextmanager
async def _received(exchange: Exchange) -> AsyncIterator[tuple[Sources, ImageToImageForm]]:
    if media_type(exchange) == JSON:
        body = decode(await exchange.json_body(), ImageToImageJson)
        images = [body.image] if isinstance(body.image, bytes) else body.image
        yield decoded_sources(exchange, images, body.mask), body
    else:
        async with picture_form(exchange) as (sources, fields):
            yield sources, convert(fields, ImageToImageForm)
