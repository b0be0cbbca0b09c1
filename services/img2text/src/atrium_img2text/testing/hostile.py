"""Documents that callers send to do harm, each with the reason that it must be refused for.

`documents.py` makes the good ones. The tests of `documents/`, of the service and of the
gateway use them; every one must be refused in bounded time and memory. Strange ones that
do no harm are here, too.
"""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from atrium_common.testing.pictures import gradient, saved
from atrium_img2text.testing.documents import (
    encrypted,
    line_of_text,
    many_pages,
    pdf,
    tiff,
    two_pages,
)

INVALID = "INVALID_MEDIA"
TIMEOUT = "PAGE_TIMEOUT"
TOO_MANY = "TOO_MANY_PAGES"
ENCRYPTED = "ENCRYPTED_DOCUMENT"

_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class HostileDocument:
    """A file, made when it is asked for, and what it is refused for.

    Attributes:
        make: Makes it.
        reasons: One of these it is refused for, when it is opened or its first page is
            drawn; several where it depends on the machine which limit is met first.
    """

    make: Callable[[], bytes]
    reasons: Sequence[str] = (INVALID,)

    @property
    def data(self) -> bytes:
        """The file."""
        return self.make()


def deflate_bomb(data: bytes, *, times: int) -> bytes:
    """A zlib stream that unpacks to `data` repeated `times` times, made in no time.

    It lacks its checksum, which nobody gets to.
    """
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + block * times + b"\x03\x00"


def hostile_pdfs() -> dict[str, HostileDocument]:
    """PDFs, by what they are."""
    hello = [line_of_text("hello")]
    either = (INVALID, TIMEOUT)
    return {
        "pdf-header": HostileDocument(lambda: b"%PDF-1.7\n"),
        "pdf-cut": HostileDocument(_cut_pdf),
        "pdf-noise": HostileDocument(lambda: b"%PDF-1.7\n" + bytes(range(256)) * 400),
        "pdf-no-pages": HostileDocument(lambda: pdf([])),
        "pdf-encrypted": HostileDocument(lambda: encrypted("secret"), (ENCRYPTED,)),
        "pdf-500-pages": HostileDocument(lambda: many_pages(500), (TOO_MANY,)),
        "pdf-huge-page": HostileDocument(lambda: pdf(hello, box="[0 0 2000000 2000000]")),
        "pdf-no-area": HostileDocument(lambda: pdf(hello, box="[0 0 1000000 0.0001]")),
        "pdf-operators-bomb": HostileDocument(_operators_bomb, either),
        "pdf-nested-bomb": HostileDocument(_nested_bomb, either),
        "pdf-echoes": HostileDocument(echoes, either),
        "pdf-objects": HostileDocument(_many_objects, either),
    }


def strange_pdfs() -> dict[str, bytes]:
    """PDFs of one page that lie about themselves, and that viewers open all the same."""
    plain = pdf([line_of_text("hello")])
    return {
        "pdf-claims-pages": plain.replace(b"/Count 1", b"/Count 99999999"),
        "pdf-tree-loop": plain.replace(b"/Kids [", b"/Kids [2 0 R "),
        "pdf-endless-page": pdf([line_of_text("hello")], box="[0 0 1e30 1e30]"),
        "pdf-appendix": plain + b"\n<script>alert(1)</script>" * 9,
        "pdf-no-table": plain[: plain.rindex(b"xref\n0")] + b"trailer << /Root 1 0 R >>",
        "pdf-picture-bomb": _picture_bomb(),
    }


def _cut_pdf() -> bytes:
    """Half of a PDF, without its page."""
    plain = two_pages()
    return plain[: len(plain) // 2].replace(b"/Page", b"/Nope")


def _operators_bomb() -> bytes:
    """A page that draws a line a hundred and fifty million times."""
    packed = deflate_bomb(b"0 0 m 9 9 l S " * (_MIB // 14), times=2000)
    return pdf([b""], page="/Contents 4 0 R", objects=[(packed, "/Filter /FlateDecode")])


def _nested_bomb() -> bytes:
    """A page whose program unpacks twice, to 2 GB."""
    packed = zlib.compress(deflate_bomb(b"q Q " * (_MIB // 4), times=2000))
    filters = "/Filter [/FlateDecode /FlateDecode]"
    return pdf([b""], page="/Contents 4 0 R", objects=[(packed, filters)])


def _picture_bomb() -> bytes:
    """A page with a picture of 65,000 by 65,000 colours."""
    packed = deflate_bomb(bytes(_MIB), times=12_085)
    size = "/Width 65000 /Height 65000 /ColorSpace /DeviceRGB /BitsPerComponent 8"
    entries = f"/Type /XObject /Subtype /Image {size} /Filter /FlateDecode"
    drawn = line_of_text("hello") + b" q 500 0 0 500 40 100 cm /X Do Q"
    return pdf([drawn], resources="/XObject << /X 4 0 R >>", objects=[(packed, entries)])


def echoes(*, after: Sequence[bytes] = (), depth: int = 12, width: int = 10) -> bytes:
    """A page that draws a form that draws another ten times, and so on; then plain pages."""
    objects = []
    for level in range(depth):
        below = f"/Resources << /XObject << /X {5 + level} 0 R >> >>" if level < depth - 1 else ""
        entries = f"/Type /XObject /Subtype /Form /BBox [0 0 595 842] {below}"
        drawn = b"/X Do " * width if below else b"0 0 m 500 700 l S "
        objects.append((drawn, entries))
    pages = [b"/X Do " * width, *after]
    return pdf(pages, resources="/XObject << /X 4 0 R >>", objects=objects)


def _many_objects(count: int = 1_000_000) -> bytes:
    """A file of a million objects, whose table has to be found by reading all of it."""
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    for number in range(1, count + 1):
        out.write(b"%d 0 obj[]endobj\n" % number)
    return out.getvalue()


def hostile_pictures() -> dict[str, HostileDocument]:
    """Pictures and TIFFs, by what they are."""
    bmp, gif = saved(gradient(), "BMP"), saved(Image.fromarray(gradient()).quantize(), "GIF")
    plain = tiff(2)
    files = {
        "empty": b"",
        "text": b"just a letter",
        "bigtiff": b"II+\0" + bytes(60),
        "tiff-cut": tiff(1)[:-2000],
        "tiff-header": plain[:8],
        "tiff-elsewhere": b"II*\0" + struct.pack("<I", 2**31) + bytes(64),
        "tiff-loop": _looped(plain),
        "tiff-huge": _tiff([(256, 60_000), (257, 60_000)]),
        "tiff-tiles": _tiff([(256, 64), (257, 64), (322, 60_000), (323, 60_000)]),
        "tiff-old-jpeg": _tiff([(256, 64), (257, 64), (259, 6)]),
        "tiff-unknown": _tiff([(256, 64), (257, 64), (259, 34925)]),
        "tiff-entries": b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(12 * 65_535),
        "tiff-floats": saved(Image.new("F", (32, 32)), "TIFF"),
        "bmp-cut": bmp[: len(bmp) // 2],
        "bmp-huge": bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:],
        "bmp-below-nothing": bmp[:18] + struct.pack("<ii", -5, -7) + bmp[26:],
        "gif-cut": gif[:40],
        "gif-huge": gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:],
    }
    cases = {name: HostileDocument(partial(bytes, data)) for name, data in files.items()}
    many = HostileDocument(partial(_many_directories, 500), (TOO_MANY,))
    return cases | {"tiff-500-pages": many}


def hostile() -> dict[str, HostileDocument]:
    """All of them."""
    return hostile_pdfs() | hostile_pictures()


def _tiff(tags: Sequence[tuple[int, int]]) -> bytes:
    """A little-endian TIFF of one grey page, with these tags beside those it has to have."""
    facts = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: 4096}
    if any(tag == 322 for tag, _ in tags):  # in tiles, not in strips
        facts = {tag: value for tag, value in facts.items() if tag not in (273, 278, 279)}
        facts |= {259: 8, 324: 8, 325: 4096}
    facts |= dict(tags)
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(facts.items())]
    data = zlib.compress(bytes(_MIB)).ljust(4096, b"\0")
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    return head + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def _many_directories(count: int) -> bytes:
    """A TIFF of many pages over the same pixels."""
    one = _tiff([])
    start = 8 + 4096
    directory = one[start:-4]
    length = len(directory) + 4
    following = [start + length * (number + 1) for number in range(count - 1)]
    chain = b"".join(directory + struct.pack("<I", offset) for offset in (*following, 0))
    return one[:start] + chain


def _looped(plain: bytes) -> bytes:
    """A TIFF whose last page is followed by its first."""
    order = "<" if plain[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", plain, 4)
    offset = first
    while True:
        (entries,) = struct.unpack_from(f"{order}H", plain, offset)
        end = offset + 2 + 12 * entries
        (offset,) = struct.unpack_from(f"{order}I", plain, end)
        if not offset:
            return plain[:end] + struct.pack(f"{order}I", first) + plain[end + 4 :]
