"""Uploaded pictures of an edit: from a form, which spills to disk, or from base64."""

import io
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from atrium_common.errors import InvalidArgument, MediaError, TooLarge
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.picture_schema import MAX_PICTURES
from atrium_gateway.api.uploads import MAX_FIELD_BYTES, MAX_FIELDS, media_type, put_field


@dataclass(frozen=True, slots=True)
class Sources:
    """What an edit is made of; each file stands at its beginning."""

    images: Sequence[BinaryIO]
    mask: BinaryIO | None = None


@asynccontextmanager
async def picture_form(exchange: Exchange) -> AsyncIterator[tuple[Sources, dict[str, object]]]:
    """Receives `multipart/form-data` with `image`, one or several, and perhaps a `mask`.

    Gives the files, and the other fields as text.

    Raises:
        HTTPException: 415 for another content type, 400 for a broken form.
        InvalidArgument: No picture or too many, a second mask, or an unknown file.
        MediaError: A file is empty.
        TooLarge: A file is over its limit.
    """
    if media_type(exchange) != "multipart/form-data":
        raise HTTPException(415, "Send the pictures as multipart/form-data, or JSON.")
    async with exchange.form(
        max_files=MAX_PICTURES + 1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    ) as form:
        fields: dict[str, object] = {}
        images: list[UploadFile] = []
        masks: list[UploadFile] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                _put_file(name, value, images=images, masks=masks)
            elif name.removesuffix("[]") in ("image", "mask"):
                raise InvalidArgument(f"'{name}' is no file.", field=name)
            else:
                put_field(fields, name, value)
        sources = Sources([file.file for file in images], masks[0].file if masks else None)
        sizes = [file.size or 0 for file in images]
        _check_files(exchange, sizes, masks[0].size or 0 if masks else None)
        yield sources, fields


def decoded_sources(exchange: Exchange, images: Sequence[bytes], mask: bytes | None) -> Sources:
    """Gives pictures that came in base64, decoded.

    Raises:
        InvalidArgument: There is none, or too many.
        MediaError: One is empty.
        TooLarge: One is over its limit.
    """
    _check_files(exchange, [len(image) for image in images], None if mask is None else len(mask))
    return Sources([io.BytesIO(image) for image in images], io.BytesIO(mask) if mask else None)


def data_url(url: str, *, field: str) -> bytes:
    """Decodes a data URL in base64.

    Raises:
        MediaError: What it holds is no base64.
    """
    try:
        return b64decode(url.partition(",")[2], validate=True)
    except Base64Error as err:
        raise MediaError("The picture's base64 is broken.", field=field) from err


def _put_file(
    name: str, value: UploadFile, *, images: list[UploadFile], masks: list[UploadFile]
) -> None:
    plain = name.removesuffix("[]")
    if plain == "image":
        images.append(value)
    elif plain != "mask":
        raise InvalidArgument(
            f"Unknown parameter: '{name}'.", reason="UNKNOWN_PARAMETER", field=name
        )
    elif masks:
        raise InvalidArgument("'mask' is given twice.", field="mask")
    else:
        masks.append(value)


def _check_files(exchange: Exchange, images: Sequence[int], mask: int | None) -> None:
    """Checks how many files there are and their sizes in bytes, before they are read.

    Raises:
        InvalidArgument: There is no picture, or too many.
        MediaError: A file is empty.
        TooLarge: A file is over its limit.
    """
    if not images:
        raise InvalidArgument(
            "Missing required parameter: 'image'.",
            reason="MISSING_REQUIRED_PARAMETER",
            field="image",
        )
    if len(images) > MAX_PICTURES:
        raise InvalidArgument(f"An edit takes at most {MAX_PICTURES} pictures.", field="image")
    limit = exchange.gateway.max_picture_bytes
    named = [("image", size) for size in images]
    for name, size in named if mask is None else [*named, ("mask", mask)]:
        if size == 0:
            raise MediaError(f"The file of '{name}' is empty.", field=name)
        if size > limit:
            raise TooLarge(f"A picture has {size} bytes, at most {limit} are taken.", field=name)
