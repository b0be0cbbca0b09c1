"""The two answers of `/v1/images/...`: JSON, and the events of a streamed one."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Self

import msgspec

from atrium_common.domain import Usage
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.images_schema import (
    CompletedImageEvent,
    ImageData,
    ImageRequest,
    ImageUsage,
    PartialImageEvent,
    TokenDetails,
    WithheldImage,
    WithheldImageEvent,
)
from atrium_gateway.api.picture_body import JsonBody
from atrium_gateway.api.pictures import Gallery, Picture, drawn, size_text
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.pictures import Begun, Preview, Step

_ENCODER = msgspec.json.Encoder()
_QUALITY = {"standard": "medium", "hd": "high", "auto": "medium"}
BACKGROUND = "opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What an answer repeats of its request, in OpenAI's words.

    Attributes:
        created: Unix seconds.
        quality: `low` to `max`.
        format: Of the files.
        partial_images: Most early views of a picture.
    """

    created: int
    quality: str
    format: str
    partial_images: int

    @classmethod
    def of(cls, request: ImageRequest, *, created: int) -> Self:
        """Reads it from the request."""
        quality = request.quality or "auto"
        return cls(
            created=created,
            quality=_QUALITY.get(quality, quality),
            format=request.output_format or "png",
            partial_images=request.partial_images or 0,
        )


async def reply(exchange: Exchange, principal: Principal, job: Job[Step], shown: Shown) -> None:
    """Runs a job and answers with one JSON document."""
    run, pictures = await drawn(exchange, principal, job)
    body = _document(pictures, shown, run.usage)
    pictures.clear()  # the body lets them go as they leave
    await exchange.reply_in_pieces(
        body.pieces(), size=body.size, headers=limit_headers(run.reservation.limits)
    )


async def stream(
    exchange: Exchange, principal: Principal, job: Job[Step], shown: Shown, *, kind: str
) -> None:
    """Runs a job and answers with events.

    Args:
        exchange: Whose request it is.
        principal: Who is charged.
        job: What to run.
        shown: What the events repeat.
        kind: First part of the events' types.
    """
    made = _Events(shown, kind)
    async with EventStream(exchange) as events:
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                if isinstance(step, Begun):
                    await events.open(run.reservation.limits)
                event = None
                if isinstance(step, Preview):
                    event = made.partial(step)
                elif picture := made.gallery.add(step):
                    event = made.finished(picture, run.usage)
                if event is not None:
                    name, body = event
                    await events.send_pieces(body.pieces(), event=name)
        made.gallery.check()
        await events.close()


def _document(pictures: list[Picture], shown: Shown, usage: Usage) -> JsonBody:
    sent = [picture for picture in pictures if not picture.start.withheld]
    body = JsonBody()
    body.text(b'{"created":%d,"data":[' % shown.created)
    for number, picture in enumerate(sent):
        body.text(b"," if number else b"")
        start = picture.start
        encoded = _ENCODER.encode(ImageData(index=start.index, record=start.record))
        body.with_file("b64_json", picture.data, encoded)
    size = size_text([_size(picture) for picture in sent])
    rest = {
        "background": BACKGROUND,
        "output_format": shown.format,
        "quality": shown.quality,
        **({"size": size} if size else {}),
        "usage": _usage(usage),
        "withheld": [
            WithheldImage(index=picture.start.index, reason=picture.start.withheld)
            for picture in pictures
            if picture.start.withheld
        ],
    }
    body.text(b"]," + _ENCODER.encode(rest)[1:])
    return body


@dataclass(slots=True)
class _Events:
    """Makes the events of a streamed answer, each with its type."""

    shown: Shown
    kind: str
    gallery: Gallery = field(default_factory=Gallery)
    _previews: Counter[int] = field(default_factory=Counter)
    _told: Usage = field(default_factory=Usage)

    def partial(self, view: Preview) -> tuple[str, JsonBody] | None:
        """Shows an early view, unless its picture has had as many as were asked for."""
        number = self._previews[view.index]
        if number == self.shown.partial_images:
            return None
        self._previews[view.index] += 1
        event = PartialImageEvent(
            type=f"{self.kind}.partial_image",
            created_at=self.shown.created,
            background=BACKGROUND,
            output_format="jpeg",
            quality=self.shown.quality,
            size=self._planned_size(view.index),
            index=view.index,
            partial_image_index=number,
        )
        return event.type, _with_image(view.jpeg, _ENCODER.encode(event))

    def finished(self, picture: Picture, usage: Usage) -> tuple[str, JsonBody]:
        """Brings a picture, or a note that it is withheld."""
        start = picture.start
        if start.withheld:
            note = WithheldImageEvent(
                type=f"{self.kind}.withheld", index=start.index, reason=start.withheld
            )
            body = JsonBody()
            body.text(_ENCODER.encode(note))
            return note.type, body
        event = CompletedImageEvent(
            type=f"{self.kind}.completed",
            created_at=self.shown.created,
            background=BACKGROUND,
            output_format=self.shown.format,
            quality=self.shown.quality,
            size=f"{start.record.width}x{start.record.height}",
            index=start.index,
            usage=_usage(_since(self._told, usage)),
            record=start.record,
        )
        self._told = usage
        return event.type, _with_image(picture.data, _ENCODER.encode(event))

    def _planned_size(self, index: int) -> str:
        begun = self.gallery.begun
        if begun is None or not begun.sizes:
            return "auto"
        each = max(1, begun.count // len(begun.sizes))
        width, height = begun.sizes[min(index // each, len(begun.sizes) - 1)]
        return f"{width}x{height}"


def _with_image(data: bytes | bytearray, encoded: bytes) -> JsonBody:
    body = JsonBody()
    body.with_file("b64_json", data, encoded)
    return body


def _size(picture: Picture) -> tuple[int, int]:
    record = picture.start.record
    return record.width, record.height


def _usage(usage: Usage) -> ImageUsage:
    """What was consumed, in OpenAI's shape: text is read, pictures are made."""
    return ImageUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_tokens_details=TokenDetails(text_tokens=usage.input_tokens),
        output_tokens_details=TokenDetails(image_tokens=usage.output_tokens),
        images=usage.images,
        megapixel_steps=usage.millimegapixel_steps / 1000,
        inference_time=usage.inference_time.total_seconds(),
    )


def _since(before: Usage, now: Usage) -> Usage:
    """What was consumed after `before`; a client may add up its events."""
    return replace(
        now,
        inference_time=now.inference_time - before.inference_time,
        input_tokens=now.input_tokens - before.input_tokens,
        output_tokens=now.output_tokens - before.output_tokens,
        images=now.images - before.images,
        millimegapixel_steps=now.millimegapixel_steps - before.millimegapixel_steps,
    )
