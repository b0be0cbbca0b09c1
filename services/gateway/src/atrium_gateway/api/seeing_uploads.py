"""How `/api/image-to-text` and `/api/ocr` get their picture: three ways in, or an address.

A form with `file`, JSON with `image` in base64, or the file itself as the body with the
parameters in the query; in any of them `image_url` instead, where the operator allows it.
"""

import io
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import msgspec

from atrium_common.errors import InvalidArgument, MediaError, TooLarge
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.picture_schema import StreamQuery
from atrium_gateway.api.picture_uploads import data_url
from atrium_gateway.api.seeing_schema import ImageToTextJson, OcrJson, ReadingOptions
from atrium_gateway.api.uploads import form_parts, media_type, raw_parts

FETCH_SECONDS = 30.0
"""Longest time that a picture may take to come from its address."""

F = TypeVar("F", bound=ReadingOptions)
J = TypeVar("J", bound=ImageToTextJson | OcrJson)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture or document that came in, or where it is.

    Attributes:
        name: The parameter that it came in; a body that is the file counts as ``"file"``.
        file: Stands at its beginning; ``None`` if only its address came.
        size: Bytes.
        url: Its address, or ``""``.
    """

    name: str
    file: BinaryIO | None
    size: int
    url: str = ""

    async def opened(self, exchange: Exchange) -> BinaryIO:
        """Gives the file, fetched if it has to be; call it once all parameters hold.

        Raises:
            AtriumError: Nothing is fetched here, or not from there, or it did not come.
            MediaError: The file is empty.
            TooLarge: It is over the limit.
        """
        limit = exchange.gateway.max_picture_bytes
        file, size = self.file, self.size
        if file is None:
            data = await _fetched(exchange, self.url, limit)
            file, size = io.BytesIO(data), len(data)
        if size == 0:
            raise MediaError("The file is empty.", field=self.name)
        if size > limit:
            raise TooLarge(
                f"The file has {size} bytes, at most {limit} are taken.", field=self.name
            )
        return file


@asynccontextmanager
async def received(
    exchange: Exchange, form: type[F], body: type[J]
) -> AsyncIterator[tuple[Picture, F | J]]:
    """Receives a request: its picture, and its parameters as `form` or, of JSON, as `body`.

    Raises:
        InvalidArgument: A parameter does not hold, or there is no picture, or there are two.
        MediaError: The base64 is broken.
    """
    kind = media_type(exchange)
    if kind == JSON:
        parsed = decode(await exchange.json_body(), body)
        _add_query(exchange, parsed)
        data = None if parsed.image is None else _decoded(parsed.image)
        image = None if data is None else io.BytesIO(data)
        yield _picture("image", image, len(data or b""), parsed), parsed
    elif kind == "multipart/form-data":
        async with form_parts(exchange) as (upload, fields):
            request = _converted(fields, form)
            _add_query(exchange, request)
            file = upload.file if upload else None
            size = upload.size or 0 if upload else 0
            yield _picture("file", file, size, request), request
    else:
        async with raw_parts(exchange) as raw:
            request = _converted(raw.fields, form)
            # A body without a byte is none, if the picture comes from elsewhere.
            body_file = None if request.image_url and not raw.size else raw.file
            yield _picture("file", body_file, raw.size, request), request


def _add_query(exchange: Exchange, request: ReadingOptions) -> None:
    query = convert(dict(exchange.query_params), StreamQuery)
    request.stream = request.stream or query.stream


def _converted(fields: Mapping[str, object], form: type[F]) -> F:
    """Checks fields; the one that is no plain value, `history`, is JSON."""
    history = fields.get("history")
    if isinstance(history, str):
        try:
            fields = {**fields, "history": msgspec.json.decode(history)}
        except (msgspec.DecodeError, RecursionError) as err:
            raise InvalidArgument("'history' is not valid JSON.", field="history") from err
    return convert(fields, form)


def _decoded(image: str) -> bytes:
    if image[:5].lower() == "data:":
        return data_url(image, field="image")
    try:
        return b64decode(image, validate=True)
    except (Base64Error, ValueError) as err:
        raise MediaError("The picture's base64 is broken.", field="image") from err


def _picture(name: str, file: BinaryIO | None, size: int, request: ReadingOptions) -> Picture:
    if request.image_url is None and file is None:
        raise InvalidArgument(
            f"Missing required parameter: '{name}'.",
            reason="MISSING_REQUIRED_PARAMETER",
            field=name,
        )
    if request.image_url is None:
        return Picture(name, file, size)
    if file is not None:
        raise InvalidArgument(f"Give either '{name}' or 'image_url', not both.", field="image_url")
    return Picture("image_url", None, 0, request.image_url)


async def _fetched(exchange: Exchange, url: str, limit: int) -> bytes:
    fetcher = exchange.gateway.fetcher
    if fetcher is None:
        raise InvalidArgument(
            "Nothing is fetched here: send the picture itself.",
            reason="URL_NOT_ALLOWED",
            field="image_url",
        )
    return await fetcher.fetch(url, limit=limit, deadline=time.monotonic() + FETCH_SECONDS)
