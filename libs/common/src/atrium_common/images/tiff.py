"""The pages of a TIFF, found and bounded before a decoder sees the file.

`decode.py` calls this for the page that it decodes, the opener of documents to count them.
A TIFF is a chain of directories, each of which describes a page and says where the next one
is; a file can make the chain a loop, or hang thousands of them over the same few bytes.
"""

import ctypes
import functools
import struct
from dataclasses import dataclass

from PIL import _imaging

from atrium_common.errors import MediaError

_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ENTRY_BYTES = 12
_MAX_ENTRIES = 512
"""Of a directory. Cameras write about sixty."""

_KIND, _WIDTH, _HEIGHT, _COMPRESSION = 254, 256, 257, 259
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_SHORT = 3
_REDUCED_OR_MASK = 0b101
"""Bits of `_KIND`: a directory with one of them describes a preview or a mask."""

_COMPRESSIONS = {
    1: "none",
    2: "CCITT",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
}
"""Those that scanners and editors write. libtiff can do more, of which most are rare and
little tried (old JPEG, LogLuv, ThunderScan)."""

_MAX_TILE_SLACK = 1024
"""How far a tile may reach over the picture, in pixels; the decoder makes room for it."""


@dataclass(frozen=True, slots=True)
class _Directory:
    """What one says of its page (tag to number, for those asked for) and where the next is."""

    tags: dict[int, int]
    following: int


def count_tiff_pages(data: bytes, *, most: int, field: str) -> int:
    """Counts the pages of a TIFF, up to `most` + 1. Previews and masks are none.

    Raises:
        MediaError: The chain of its pages is cut, damaged or a loop.
    """
    return len(_find_pages(data, most=most + 1, field=field))


def only_tiff_page(data: bytes, number: int, *, field: str) -> bytes:
    """Returns the file with page `number` (from 1) as its first, checked to be decoded.

    Raises:
        MediaError: There is no such page, or it is damaged or compressed in a way that is
            not taken.
    """
    pages = _find_pages(data, most=number, field=field)
    if number > len(pages):
        raise MediaError(f"The TIFF has {len(pages)} pages, not {number}.", field=field)
    offset = pages[-1]
    _check(_read_directory(data, offset, field), field)
    return data[:4] + struct.pack(f"{_BYTE_ORDERS[data[:4]]}I", offset) + data[8:]


@functools.cache
def silence_decoder() -> None:
    """Keeps libtiff from writing to standard error, which it does for every damaged row.

    Pillow has no switch for it. Where Pillow's libtiff can't be reached, all is as it was.
    """
    libtiff = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler"):
        set_handler = getattr(libtiff, name, None)
        if set_handler is not None:
            set_handler(None)


def _find_pages(data: bytes, *, most: int, field: str) -> list[int]:
    """Returns where the directories of pages are, up to `most` of them."""
    try:
        (offset,) = struct.unpack_from(f"{_BYTE_ORDERS[data[:4]]}I", data, 4)
    except (struct.error, KeyError) as err:
        raise _damaged(field) from err
    pages: list[int] = []
    seen: set[int] = set()
    while offset and len(pages) < most:
        if offset in seen or len(seen) > 2 * most:  # a preview each is as many as can be
            raise _damaged(field)
        seen.add(offset)
        directory = _read_directory(data, offset, field)
        if not directory.tags.get(_KIND, 0) & _REDUCED_OR_MASK:
            pages.append(offset)
        offset = directory.following
    if not pages:
        raise _damaged(field)
    return pages


def _read_directory(data: bytes, offset: int, field: str) -> _Directory:
    order = _BYTE_ORDERS[data[:4]]
    wanted = {_KIND, _WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT}
    tags: dict[int, int] = {}
    try:
        (entries,) = struct.unpack_from(f"{order}H", data, offset)
        if entries > _MAX_ENTRIES:
            raise _damaged(field)
        for number in range(entries):
            entry = offset + 2 + number * _ENTRY_BYTES
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            if tag in wanted:
                form = f"{order}{'H' if kind == _SHORT else 'I'}"
                (tags[tag],) = struct.unpack_from(form, data, entry + 8)
        (following,) = struct.unpack_from(f"{order}I", data, offset + 2 + entries * _ENTRY_BYTES)
    except struct.error as err:
        raise _damaged(field) from err
    return _Directory(tags, following)


def _check(page: _Directory, field: str) -> None:
    """Refuses what no decoder should be asked for."""
    compression = page.tags.get(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        raise MediaError(f"The TIFF's compression {compression} is not taken.", field=field)
    for tile, side in ((_TILE_WIDTH, _WIDTH), (_TILE_HEIGHT, _HEIGHT)):
        if page.tags.get(tile, 0) > page.tags.get(side, 0) + _MAX_TILE_SLACK:
            raise _damaged(field)


def _damaged(field: str) -> MediaError:
    return MediaError("The TIFF file is cut or damaged.", field=field)
