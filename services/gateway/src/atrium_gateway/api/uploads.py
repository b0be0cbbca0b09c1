"""Uploaded files, from a form or a raw body, in a file that spills to disk when it grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from atrium_common.errors import InvalidArgument, MediaError
from atrium_gateway.api.exchange import Exchange

MEMORY_BYTES = 1 << 20
MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 << 10
LIST_FIELDS = frozenset(
    {"timestamp_granularities", "keywords", "hotwords", "loras", "languages", "questions"}
)
LOW_BIT_RATE = 16_000
"""Bits per second of speech in a thrifty codec. Audio in a thriftier one lasts longer
than its bound; its reservation then grows by the heartbeat."""
_WAV_HEADER = 44


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file.

    Attributes:
        file: Stands at its beginning.
        size: Bytes.
        fields: The form's other fields, text; several of one name as a list.
    """

    file: BinaryIO
    size: int
    fields: dict[str, object]

    def length_bound(self) -> timedelta:
        """About the longest that the audio may last: exact for WAV, by bit rate else."""
        head = self.file.read(_WAV_HEADER)
        self.file.seek(0)
        rate = LOW_BIT_RATE // 8
        if len(head) == _WAV_HEADER and head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt ":
            rate = int.from_bytes(head[28:32], "little") or rate
        return timedelta(seconds=self.size / rate)


@asynccontextmanager
async def form_upload(exchange: Exchange) -> AsyncIterator[Upload]:
    """Receives `multipart/form-data` with one field `file`.

    Raises:
        HTTPException: 415 for another content type, 400 for a broken form.
        InvalidArgument: No file, an empty one, or a field given twice.
    """
    async with form_parts(exchange) as (upload, fields):
        if upload is None:
            raise InvalidArgument("The form has no 'file'.", field="file")
        try:
            yield _checked(upload.file, upload.size or 0, fields)
        except MediaError as err:
            # A service knows the upload by its own name; this form calls it "file".
            err.field = "file"
            raise


@asynccontextmanager
async def form_parts(
    exchange: Exchange,
) -> AsyncIterator[tuple[UploadFile | None, dict[str, object]]]:
    """Receives `multipart/form-data`: the field `file`, if there is one, and the others.

    Raises:
        HTTPException: 415 for another content type, 400 for a broken form.
        InvalidArgument: A file by another name, or a field given twice.
    """
    if media_type(exchange) != "multipart/form-data":
        raise HTTPException(415, "Send the file as multipart/form-data.")
    async with exchange.form(
        max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    ) as form:
        fields: dict[str, object] = {}
        upload: UploadFile | None = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                upload = _file(name, value)
            else:
                put_field(fields, name, value)
        yield upload, fields


@asynccontextmanager
async def raw_upload(exchange: Exchange) -> AsyncIterator[Upload]:
    """Receives a body that is the file itself; the query has the parameters.

    Raises:
        InvalidArgument: The body is empty, or a parameter is given twice.
    """
    async with raw_parts(exchange) as upload:
        yield _checked(upload.file, upload.size, upload.fields)


@asynccontextmanager
async def raw_parts(exchange: Exchange) -> AsyncIterator[Upload]:
    """As `raw_upload`, of a body that may be empty."""
    fields: dict[str, object] = {}
    for name, value in exchange.query_params.multi_items():
        put_field(fields, name, value)
    with SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        size = 0
        async for piece in exchange.stream():
            size += len(piece)
            if size > MEMORY_BYTES:
                await asyncio.to_thread(file.write, piece)
            else:
                file.write(piece)
        file.seek(0)
        yield Upload(cast(BinaryIO, file), size, fields)


def media_type(exchange: Exchange) -> str:
    """The declared content type without its parameters, in lower case."""
    return exchange.headers.get("content-type", "").partition(";")[0].strip().lower()


def _file(name: str, value: UploadFile) -> UploadFile:
    if name != "file":
        raise InvalidArgument(
            f"Unknown parameter: '{name}'.", reason="UNKNOWN_PARAMETER", field=name
        )
    return value


def put_field(fields: dict[str, object], name: str, value: str) -> None:
    """Adds a field; OpenAI's clients mark a list's name with brackets."""
    plain = name.removesuffix("[]")
    if plain in LIST_FIELDS:
        values = fields.setdefault(plain, [])
        assert isinstance(values, list)  # noqa: S101 - put there by this function alone
        values.append(value)
    elif name in fields:
        raise InvalidArgument(f"'{name}' is given twice.", field=name)
    else:
        fields[name] = value


def _checked(file: BinaryIO, size: int, fields: dict[str, object]) -> Upload:
    if size == 0:
        raise MediaError("The file is empty.", field="file")
    return Upload(file, size, fields)
