"""Draws the pages of one PDF: the process that `pdf_process.py` starts for each document.

pdfium is a large C++ program that reads what strangers made, and it takes as long and as
much memory as they like. So it runs alone: with no environment, no more memory than it is
given, a limit on its processor time, and nothing that it could write to. Whatever it does
wrong ends this process and no other.

It is run as a script, on its own, so that it starts in a sixth of a second: it imports
nothing of Atrium. The only argument is its address space in MiB. It reads a request a line
from its input and writes an answer a line to its output, both JSON objects:

    (starts)                                      {"ready": true}
    {"path": p, "seconds": s}                     {"pages": n}
    {"page": k, "resolution": dpi,                {"width": w, "height": h, "resolution": dpi}
     "max_pixels": n, "max_side": n,              and w * h * 3 bytes, RGB row by row
     "seconds": s}

The first request opens the document, each further one draws a page, from 0; `seconds` is
the processor time that it may take. An answer may be ``{"refused": why}`` instead, with
`why` one of ``encrypted``, ``damaged`` and ``large``. The process ends with its input.
"""

import contextlib
import json
import math
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import pypdfium2  # type: ignore[import-untyped]
import pypdfium2.raw as pdfium  # type: ignore[import-untyped]

_POINTS_PER_INCH = 72 * (1 + 1e-6)
"""A hair more, because pages' sides are rounded up to pixels: a page scanned at 200 pixels per
inch, whose sides in points are a little off, is drawn with the pixels that it has."""
_LEAST_RESOLUTION = 20
"""Pixels per inch under which nothing can be read, so that drawing makes no sense."""
_LARGEST_SIDE = 1_000_000
"""In points. The format's own limit is 14,400."""


class Refused(Exception):
    """The document or page is not drawn; its text says why."""


def main() -> None:
    """Serves requests until there are none."""
    _limit(memory_mib=int(sys.argv[1]))
    _answer({"ready": True})
    document: pypdfium2.PdfDocument | None = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_time(request["seconds"])
        pixels: memoryview | None = None
        try:
            if document is None:
                document = _open(Path(request["path"]))
                answer: Mapping[str, object] = {"pages": len(document)}
            else:
                answer, pixels = _draw(document, request)
        except Refused as refusal:
            answer = {"refused": str(refusal)}
        except (pypdfium2.PdfiumError, MemoryError):
            answer = {"refused": "damaged"}
        _answer(answer, pixels)


def _limit(memory_mib: int) -> None:
    """Gives up memory, files to write and core dumps before anything strange is read."""
    memory = memory_mib * 1024**2
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time(seconds: float) -> None:
    """Has the system end this process when it computes for longer, its parent gone or not."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def _open(path: Path) -> pypdfium2.PdfDocument:
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as err:
        password = err.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY)
        raise Refused("encrypted" if password else "damaged") from err
    if not len(document):
        raise Refused("damaged")
    # So that what was filled in is drawn. Nothing in the document is executed: this pdfium
    # has no interpreter of JavaScript, and no action is asked for.
    document.init_forms()
    return document


def _draw(
    document: pypdfium2.PdfDocument, request: Mapping[str, int]
) -> tuple[Mapping[str, object], memoryview]:
    """Draws a page as it would be printed: on white, annotations and forms included."""
    with contextlib.closing(document[request["page"]]) as page:
        width, height = page.get_size()
        resolution = _resolution(width, height, request)
        drawn = page.render(scale=resolution / _POINTS_PER_INCH, rev_byteorder=True)
    size = {"width": drawn.width, "height": drawn.height, "resolution": resolution}
    return size, memoryview(drawn.buffer)


def _resolution(width: float, height: float, request: Mapping[str, int]) -> int:
    """Returns at how many pixels per inch a page of so many points fits into the limits."""
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise Refused("large" if max(width, height) > _LARGEST_SIDE else "damaged")
    resolution, most = request["resolution"], request["max_pixels"]
    while resolution >= _LEAST_RESOLUTION:
        sides = [math.ceil(side * resolution / _POINTS_PER_INCH) for side in (width, height)]
        if math.prod(sides) <= most and max(sides) <= request["max_side"]:
            return resolution
        resolution -= 1
    raise Refused("large")


def _answer(answer: Mapping[str, object], pixels: memoryview | None = None) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    if pixels is not None:
        sys.stdout.buffer.write(pixels)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
