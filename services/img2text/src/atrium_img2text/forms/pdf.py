"""A PDF that can be searched: each page's picture, and its text invisibly on it.

`form.py` opens it. Pages are written as they come, and only the characters that were used
stay in memory.
"""

from typing import BinaryIO

from atrium_common.images import encode
from atrium_img2text.forms.pdf_file import PdfFile
from atrium_img2text.forms.pdf_font import ADVANCE, UNITS_PER_EM, InvisibleFont
from atrium_img2text.forms.pdf_text import placed
from atrium_img2text.forms.xml import decimal
from atrium_img2text.reading import DEFAULT_RESOLUTION, Page, PageImage

_POINTS_PER_INCH = 72
_MAX_SIDE = 14_400
"""Points that a page has at most, by ISO 32000-1, annex C."""
_JPEG_QUALITY = 85


class PdfWriter:
    """PDF 1.7."""

    media_type = "application/pdf"

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`."""
        self._file = PdfFile(file)
        self._font = InvisibleFont()
        self._pages: list[int] = []
        self._tree = self._file.reserve()
        self._font_number = self._file.reserve()

    def begin(self) -> None:
        """Writes the header."""
        self._file.begin()

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page."""
        scale = _scale(page, image)
        height, width = image.pixels.shape[:2]
        size = f"/Width {width} /Height {height}"
        picture = self._file.write_stream(
            encode(image.pixels, "jpeg", quality=_JPEG_QUALITY),
            f"/Type /XObject /Subtype /Image {size} /ColorSpace /DeviceRGB "
            "/BitsPerComponent 8 /Filter /DCTDecode",
            packed=False,
        )
        contents = self._file.write_stream(self._contents(page, scale).encode("ascii"))
        sides = f"{decimal(page.width * scale)} {decimal(page.height * scale)}"
        number = self._file.write(
            f"<< /Type /Page /Parent {self._tree} 0 R /MediaBox [0 0 {sides}] "
            f"/Rotate {_quarter_turns(page.rotation)} "
            f"/Resources << /XObject << /Page {picture} 0 R >> "
            f"/Font << /Text {self._font_number} 0 R >> >> /Contents {contents} 0 R >>"
        )
        self._pages.append(number)

    def end(self) -> None:
        """Writes the font, and what holds the pages together."""
        self._font.write(self._file, self._font_number)
        kids = " ".join(f"{number} 0 R" for number in self._pages)
        tree = f"<< /Type /Pages /Kids [{kids}] /Count {len(self._pages)} >>"
        self._file.write(tree, self._tree)
        root = self._file.write(f"<< /Type /Catalog /Pages {self._tree} 0 R >>")
        info = self._file.write("<< /Producer (Atrium) >>")
        self._file.end(root=root, info=info)

    def _contents(self, page: Page, scale: float) -> str:
        """Draws the picture, then the text over it; units are pixels."""
        factor = f"{scale:.8f}"
        parts = [
            f"q {factor} 0 0 {factor} 0 0 cm",
            f"q {page.width} 0 0 {page.height} 0 0 cm /Page Do Q",
            "BT 3 Tr",
        ]
        for piece in placed(page):
            natural = len(piece.text) * piece.size * ADVANCE / UNITS_PER_EM
            if not natural:
                continue
            cosine, sine = decimal(piece.cosine), decimal(piece.sine)
            parts += [
                f"/Text {decimal(piece.size)} Tf {decimal(100 * piece.stretch / natural)} Tz",
                f"{cosine} {sine} {decimal(-piece.sine)} {cosine} "
                f"{decimal(piece.x)} {decimal(piece.y)} Tm",
                f"<{self._font.encode(piece.text)}> Tj",
            ]
        parts.append("ET Q")
        return "\n".join(parts)


def _scale(page: Page, image: PageImage) -> float:
    """Returns how many points a pixel has."""
    scale = _POINTS_PER_INCH / (image.resolution or DEFAULT_RESOLUTION)
    return min(scale, _MAX_SIDE / max(page.width, page.height))


def _quarter_turns(rotation: float) -> int:
    """Returns by how much a viewer turns the page clockwise: upright, but for its skew."""
    return round(rotation / 90) % 4 * 90
