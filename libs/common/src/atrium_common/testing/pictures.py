"""Picture files to test with: plain ones, and those that callers send to do harm.

The tests of `atrium_common.images`, of the picture services and of the gateway use them.
Needs the extra ``images``.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from atrium_common.images import Pixels

ORIENTATION_TAG = 0x0112


def gradient(width: int = 48, height: int = 32) -> Pixels:
    """Draws a picture without any symmetry: red grows rightwards, green downwards."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    picture[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, np.newaxis]
    picture[: height // 4, : width // 4, 2] = 255
    return picture


def saved(image: Image.Image | Pixels, format: str = "PNG", **options: object) -> bytes:
    """Saves a picture with Pillow; `options` are those of its writer."""
    out = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(out, format, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Makes metadata that says how a picture is to be turned, 1 to 8."""
    facts = Image.Exif()
    facts[ORIENTATION_TAG] = orientation
    return facts


def animated(format: str, frames: int = 3) -> bytes:
    """Makes an animated ``"GIF"``, ``"PNG"`` or ``"WEBP"``."""
    pictures = [Image.new("RGB", (16, 16), (80 * number, 0, 0)) for number in range(frames)]
    return saved(pictures[0], format, save_all=True, append_images=pictures[1:])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Makes a chunk of a PNG with a checksum that holds."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(
    width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: Sequence[bytes] = ()
) -> bytes:
    """Puts a PNG together by hand; `rows` are what is compressed, filter bytes included."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join((png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(rows))))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def claiming_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with a megabyte of black in 1 KB behind it."""
    return raw_png(width, height, depth=8, colour=2, rows=bytes(1024**2))


def claiming_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header claims a size, up to 65,535 a side."""
    data = bytearray(saved(gradient(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def claiming_webp(width: int, height: int) -> bytes:
    """A WebP whose header claims a size, up to 16,384 a side."""
    data = bytearray(saved(gradient(), "WEBP", lossless=True))
    stream = data.index(b"VP8L") + 9
    sides = (int.from_bytes(data[stream : stream + 4], "little") >> 28 << 28) | (
        (width - 1) | (height - 1) << 14
    )
    data[stream : stream + 4] = sides.to_bytes(4, "little")
    return bytes(data)


def scan_bomb(scans: int = 500) -> bytes:
    """A small progressive JPEG that makes its decoder pass over the picture again and again."""
    data = saved(gradient(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def archive() -> bytes:
    """A ZIP file, to be found behind a picture."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("run.sh", "echo no")
    return out.getvalue()


def polyglots() -> dict[str, bytes]:
    """Pictures that are something else too; they are taken for the picture that they are."""
    behind = archive()
    page = b"<html><script>alert(1)</script></html>"
    return {
        "png-zip": saved(gradient()) + behind,
        "jpeg-zip": saved(gradient(), "JPEG") + behind,
        "webp-zip": saved(gradient(), "WEBP") + behind,
        "jpeg-html-comment": saved(gradient(), "JPEG", comment=page),
        "png-html": saved(gradient()) + page,
    }


def refused() -> dict[str, bytes]:
    """Files that must be refused as pictures, by what they are."""
    png, jpeg = saved(gradient(96, 64)), saved(gradient(96, 64), "JPEG")
    webp = saved(gradient(96, 64), "WEBP")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    return {
        "empty": b"",
        "text": b"a picture of a cat",
        "zip": archive(),
        "zip-jpeg": archive() + jpeg,
        "pdf": b"%PDF-1.7\n%%EOF",
        "svg": svg,
        "svg-declared": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- hi -->\n' + svg,
        "gif": saved(gradient(), "GIF"),
        "gif-animated": animated("GIF"),
        "bmp": saved(gradient(), "BMP"),
        "tiff": saved(gradient(), "TIFF"),
        "ico": saved(gradient(32, 32), "ICO"),
        "avif": b"\0\0\0\x20ftypavif" + bytes(64),
        "png-animated": animated("PNG"),
        "webp-animated": animated("WEBP"),
        "png-cut": png[: len(png) // 2],
        "png-cut-header": png[:20],
        "png-signature": png[:8],
        "png-checksum": png[:-20] + bytes([png[-20] ^ 1]) + png[-19:],
        "jpeg-cut": jpeg[: len(jpeg) // 2],
        "jpeg-cut-header": jpeg[:40],
        "webp-cut": webp[: len(webp) // 2],
        "webp-cut-header": webp[:24],
        "png-huge": claiming_png(60_000, 60_000),
        "png-wide": claiming_png(1_000_000, 1),
        "png-claims-most": claiming_png(2**31 - 1, 2**31 - 1),
        "png-nothing": claiming_png(0, 0),
        "jpeg-huge": claiming_jpeg(65_535, 65_535),
        "webp-huge": claiming_webp(16_384, 16_384),
        "webp-large": claiming_webp(10_000, 10_000),
        "jpeg-scans": scan_bomb(),
    }
