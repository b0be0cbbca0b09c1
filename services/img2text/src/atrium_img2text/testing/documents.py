"""Documents to test with, made in code; those that callers send to do harm are in `hostile.py`.

The tests of `documents/`, of the service and of the gateway use them. Needs pypdf for the
encrypted ones.
"""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw
from pypdf import PdfReader, PdfWriter

from atrium_common.testing.pictures import saved
from atrium_img2text.forms.pdf_file import PdfFile

A4 = "[0 0 595 842]"
"""In points."""
TEXTS = ("First page says hello", "Second page says goodbye")
"""What stands on the pages of `two_pages`, in Helvetica."""


def pdf(
    contents: Sequence[bytes],
    *,
    box: str = A4,
    page: str = "",
    catalog: str = "",
    resources: str = "",
    objects: Sequence[tuple[bytes, str]] = (),
) -> bytes:
    """Makes a PDF.

    Args:
        contents: Of each page, a program of drawing operators.
        box: Of each page, in points.
        page: Further entries of each page.
        catalog: Further entries of the catalogue.
        resources: Further entries of each page's resources.
        objects: Further streams, each its data as it is in the file and its entries; they
            have the numbers from 4 on.
    """
    out = io.BytesIO()
    file = PdfFile(out)
    file.begin()
    root, tree = file.reserve(), file.reserve()
    font = file.write("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for data, entries in objects:
        file.write_stream(data, entries, packed=False)
    held = f"/Resources << /Font << /F {font} 0 R >> {resources} >>"
    kids = []
    for content in contents:
        stream = file.write_stream(content)
        kids.append(
            file.write(
                f"<< /Type /Page /Parent {tree} 0 R /MediaBox {box} {held} "
                f"/Contents {stream} 0 R {page} >>"
            )
        )
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    file.write(f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>", tree)
    file.write(f"<< /Type /Catalog /Pages {tree} 0 R {catalog} >>", root)
    file.end(root=root, info=file.write("<< >>"))
    return out.getvalue()


def line_of_text(text: str, *, size: int = 24) -> bytes:
    """Draws a line of Latin text near the top of an A4 page."""
    return f"BT /F {size} Tf 72 720 Td ({text}) Tj ET".encode("latin-1")


def two_pages() -> bytes:
    """A PDF with `TEXTS` on its two pages."""
    return pdf([line_of_text(text) for text in TEXTS])


def many_pages(pages: int = 500) -> bytes:
    """A PDF with the number of each page on it."""
    return pdf([line_of_text(f"Page {number}") for number in range(1, pages + 1)])


def encrypted(user_password: str) -> bytes:
    """`two_pages` behind passwords; with an empty user password, anybody may open it."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(two_pages())))
    writer.encrypt(user_password, "owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def active() -> bytes:
    """A PDF that wants to run scripts and programs, and holds a field that was filled in."""
    script = "<< /S /JavaScript /JS (while (true) app.alert\\(1\\);) >>"
    program = "<< /S /Launch /F (/bin/sh) >>"
    shown = b"BT /F 24 Tf 4 10 Td (Filled in) Tj ET"
    look = "/Type /XObject /Subtype /Form /BBox [0 0 300 40] /Resources << /Font << /F 3 0 R >> >>"
    field = (
        "<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Filled in) /F 4 "
        f"/Rect [72 500 372 540] /AP << /N 4 0 R >> /AA << /E {script} /PO {program} >> >>"
    )
    return pdf(
        [line_of_text(TEXTS[0])],
        page=f"/Annots [{field}] /AA << /O {script} >>",
        catalog=f"/OpenAction {script} /AcroForm << /Fields [] >>",
        objects=[(shown, look)],
    )


def picture_of(text: str, *, size: tuple[int, int] = (400, 120)) -> Image.Image:
    """Draws a line of text, black on white."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((20, 40), text, "black", font_size=28)
    return image


def tiff(pages: int = 3, **options: object) -> bytes:
    """A TIFF whose pages have their numbers on them, at 300 pixels per inch."""
    images = [picture_of(f"Page {number}").convert("L") for number in range(1, pages + 1)]
    options = {"save_all": True, "append_images": images[1:], "dpi": (300, 300), **options}
    return saved(images[0], "TIFF", **options)


def good() -> dict[str, tuple[bytes, int, str]]:
    """Documents that are read, by what they are: file, pages, media type."""
    photo = picture_of("Hello")
    return {
        "png": (saved(photo, "PNG"), 1, "image/png"),
        "jpeg": (saved(photo, "JPEG"), 1, "image/jpeg"),
        "webp": (saved(photo, "WEBP", lossless=True), 1, "image/webp"),
        "bmp": (saved(photo, "BMP"), 1, "image/bmp"),
        "gif": (saved(photo.quantize(8), "GIF"), 1, "image/gif"),
        "gif-animated": (
            saved(photo, "GIF", save_all=True, append_images=[picture_of("Other")]),
            1,
            "image/gif",
        ),
        "tiff": (tiff(1), 1, "image/tiff"),
        "tiff-pages": (tiff(3), 3, "image/tiff"),
        "tiff-lzw": (tiff(2, compression="tiff_lzw"), 2, "image/tiff"),
        "tiff-jpeg": (tiff(2, compression="jpeg"), 2, "image/tiff"),
        "tiff-deflate": (tiff(2, compression="tiff_adobe_deflate"), 2, "image/tiff"),
        "pdf": (two_pages(), 2, "application/pdf"),
        "pdf-no-password": (encrypted(""), 2, "application/pdf"),
        "pdf-active": (active(), 1, "application/pdf"),
    }
