"""Names a picture format by its first bytes; `decode.py` opens only what this lets pass.

A file's name and declared type don't count. What is not taken is refused by its name, so
that a caller learns why a GIF or an SVG does not work.
"""

import re

PNG, JPEG, WEBP = "PNG", "JPEG", "WebP"
BMP, GIF, TIFF = "BMP", "GIF", "TIFF"
TAKEN = (PNG, JPEG, WEBP)
"""What is decoded where nobody asks for more."""
EVERY = (*TAKEN, BMP, GIF, TIFF)
"""What can be decoded: of a GIF the first frame, of a TIFF any page."""

_HEAD = 1024
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", PNG),
    (0, b"\xff\xd8\xff", JPEG),
    (8, b"WEBP", WEBP),
    (0, b"GIF8", GIF),
    (0, b"BM", BMP),
    (0, b"II*\0", TIFF),
    (0, b"MM\0*", TIFF),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"qoif", "QOI"),
    (0, b"PK\x03\x04", "ZIP"),
)
_SVG = re.compile(rb"<(\w+:)?svg[\s>]|<!DOCTYPE\s+svg", re.IGNORECASE)


def name_format(data: bytes) -> str | None:
    """Returns the format's usual name, or ``None`` if the first bytes are of none we know."""
    for offset, magic, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    return "SVG" if _SVG.search(data[:_HEAD]) else None
