"""The three answers of `/api/text-to-image` and `/api/image-to-image`: JSON, file, events."""

from dataclasses import dataclass
from typing import Self

import msgspec

from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument
from atrium_gateway.api.decode import convert
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.picture_body import JsonBody
from atrium_gateway.api.picture_schema import (
    PictureObject,
    PicturePreview,
    PicturesBegun,
    PicturesDone,
    PictureSize,
    PictureUsage,
    StreamQuery,
    TextToImageRequest,
)
from atrium_gateway.api.pictures import CONTENT_TYPES, Gallery, Picture, drawn
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.pictures import Begun, Output, Preview, Previews, Progress, Step

_ENCODER = msgspec.json.Encoder()
_BY_TYPE = {content_type: name for name, content_type in CONTENT_TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """In which of the three shapes a request is answered.

    Attributes:
        events: As events.
        file: As the file itself; JSON if neither.
        output: How pictures are encoded.
        previews: What is shown on the way.
    """

    events: bool
    file: bool
    output: Output
    previews: Previews

    @classmethod
    def of(cls, exchange: Exchange, request: TextToImageRequest, *, uploads: int) -> Self:
        """Reads the query, `Accept` and the body's own words.

        Args:
            exchange: Whose request it is.
            request: Its parameters.
            uploads: Pictures that are edited; 1 for a picture from text.

        Raises:
            InvalidArgument: They contradict each other; `field` names it.
        """
        query = convert(dict(exchange.query_params), StreamQuery)
        events = query.stream or bool(request.stream)
        named = None if events else _image_type(exchange)
        file_format = named or request.format or "png"
        if request.format not in (None, file_format):
            raise InvalidArgument(
                f"'Accept' asks for {file_format}, 'format' for {request.format}.", field="format"
            )
        if named and (request.n or 1) * uploads != 1:
            raise InvalidArgument(
                "A file is one picture; for several ask for JSON or 'stream'.", field="n"
            )
        if request.preview_interval and not events:
            raise InvalidArgument("Previews need 'stream'.", field="preview_interval")
        return cls(
            events=events,
            file=named is not None,
            output=Output(
                format=file_format, quality=request.quality, embed_record=request.embed_record
            ),
            previews=Previews(interval=request.preview_interval, max_side=request.preview_max_side),
        )


async def answer(
    exchange: Exchange, principal: Principal, job: Job[Step], *, wanted: Wanted
) -> None:
    """Runs a job and answers with its pictures."""
    async with exchange.until_disconnect():
        if wanted.events:
            await _stream(exchange, principal, job)
        else:
            await _reply(exchange, principal, job, file=wanted.file)


def _image_type(exchange: Exchange) -> str | None:
    """The format that `Accept` asks for as a file; ``None`` for JSON."""
    kinds = exchange.accepted()
    if JSON in kinds:
        return None
    return next((_BY_TYPE[kind] for kind in kinds if kind in _BY_TYPE), None)


async def _reply(exchange: Exchange, principal: Principal, job: Job[Step], *, file: bool) -> None:
    run, pictures = await drawn(exchange, principal, job)
    identity, headers = run.reservation.id, limit_headers(run.reservation.limits)
    if file:
        await _send_file(exchange, pictures[0], {**headers, "x-atrium-id": identity})
        return
    body = JsonBody()
    head = {"id": identity, "model": job.model}
    body.text(_ENCODER.encode(head)[:-1] + b',"pictures":[')
    for number, picture in enumerate(pictures):
        body.text(b"," if number else b"")
        _put_picture(body, picture)
    body.text(b'],"usage":' + _ENCODER.encode(_usage(run.usage)) + b"}")
    pictures.clear()  # the body lets them go as they leave
    await exchange.reply_in_pieces(body.pieces(), size=body.size, headers=headers)


async def _send_file(exchange: Exchange, picture: Picture, headers: dict[str, str]) -> None:
    record = picture.start.record
    own = {
        "cache-control": "no-store",
        "x-atrium-model": record.model,
        "x-atrium-seed": str(record.seed),
        "x-atrium-steps": str(record.steps),
    }
    await exchange.reply(
        bytes(picture.data),
        content_type=CONTENT_TYPES[picture.start.format],
        headers={**headers, **own},
    )


async def _stream(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    gallery = Gallery()
    async with EventStream(exchange, named=True) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                picture = gallery.add(step)
                if isinstance(step, Begun):
                    await events.open(run.reservation.limits)
                    await events.send(_ENCODER.encode(_begun(step, job.model)), event="info")
                elif isinstance(step, Progress):
                    await events.send(_ENCODER.encode(step), event="progress")
                elif isinstance(step, Preview):
                    view = PicturePreview(index=step.index, step=step.step, image=step.jpeg)
                    await events.send(_ENCODER.encode(view), event="preview")
                elif picture:
                    body = JsonBody()
                    _put_picture(body, picture)
                    await events.send_pieces(body.pieces(), event="picture")
        gallery.check()
        done = PicturesDone(
            id=run.reservation.id,
            pictures=gallery.finished - gallery.withheld,
            withheld=gallery.withheld,
            usage=_usage(run.usage),
        )
        await events.send(_ENCODER.encode(done), event="done")
        await events.close()


def _put_picture(body: JsonBody, picture: Picture) -> None:
    """Appends a `PictureObject`, with its file unless it is withheld."""
    start = picture.start
    encoded = _ENCODER.encode(
        PictureObject(
            index=start.index,
            format=start.format,
            content_type=CONTENT_TYPES[start.format],
            size=start.size,
            sha256=picture.sha256,
            withheld=start.withheld or None,
            record=start.record,
        )
    )
    if start.withheld:
        body.text(encoded)
    else:
        body.with_file("image", picture.data, encoded)


def _usage(usage: Usage) -> PictureUsage:
    """What a request consumed, for an answer."""
    return PictureUsage(
        model=usage.model,
        model_digest=usage.model_digest,
        engine=usage.engine,
        images=usage.images,
        megapixel_steps=usage.millimegapixel_steps / 1000,
        queue_time=usage.queue_time.total_seconds(),
        inference_time=usage.inference_time.total_seconds(),
    )


def _begun(begun: Begun, model: str) -> PicturesBegun:
    return PicturesBegun(
        model=model,
        count=begun.count,
        steps=begun.steps,
        sizes=[PictureSize(width, height) for width, height in begun.sizes],
        seed=begun.seed,
    )
