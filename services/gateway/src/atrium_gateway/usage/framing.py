"""How records lie in the spool: one JSON line each, led by its CRC-32.

A line that a crash tore, or that the disk spoilt, is told from a whole one and skipped.
"""

import zlib
from collections.abc import Iterator

import msgspec

from atrium_gateway.usage.records import Record

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_CRC_LENGTH = 8


def frame(record: Record) -> bytes:
    """The line of a record, newline included."""
    payload = _ENCODER.encode(record)
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> Record | None:
    """The record of a line without its newline, or ``None`` if the line is not whole."""
    payload = line[_CRC_LENGTH + 1 :]
    if line[: _CRC_LENGTH + 1] != b"%08x " % zlib.crc32(payload):
        return None
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError:
        return None


def records(data: bytes) -> Iterator[tuple[Record | None, int]]:
    """Walks over whole lines.

    Yields:
        The record (``None`` for a spoilt line) and the offset after its line. Bytes
        after the last newline are not reported.
    """
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        if end > start:
            yield unframe(data[start:end]), end + 1
        start = end + 1
