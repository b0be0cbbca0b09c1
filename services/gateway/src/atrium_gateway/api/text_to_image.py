"""`POST /api/text-to-image`: pictures from text, with everything that made them."""

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability
from atrium_gateway.api.decode import decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.picture_answers import Wanted, answer
from atrium_gateway.api.picture_schema import TextToImageRequest
from atrium_gateway.api.pictures import denoising_of, drawing_job, resolve
from atrium_gateway.upstreams.pictures import Drawing


async def create_text_to_image(exchange: Exchange) -> None:
    """Draws pictures: as JSON, as a file, or as events."""
    principal = await exchange.authenticate()
    request = decode(await exchange.json_body(), TextToImageRequest)
    entry = resolve(exchange, request.model, Capability.TEXT_TO_IMAGE)
    wanted = Wanted.of(exchange, request, uploads=1)
    job = drawing_job(exchange, drawing_of(request, entry, wanted), entry)
    await answer(exchange, principal, job, wanted=wanted)


def drawing_of(request: TextToImageRequest, entry: ModelEntry, wanted: Wanted) -> Drawing:
    """What is asked of the service."""
    return Drawing(
        model=entry.id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width or 0,
        height=request.height or 0,
        n=request.n or 1,
        denoising=denoising_of(request, steps=request.steps),
        output=wanted.output,
        previews=wanted.previews,
        priority=request.priority,
        truncate_prompt=request.truncate_prompt,
    )
