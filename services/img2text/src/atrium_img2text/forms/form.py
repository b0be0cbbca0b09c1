"""What every form offers, the file it is written to, and opening one by its name.

A form is written page by page into an unnamed temporary file, so that memory holds one
page at most. The service calls this.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self, cast

from atrium_img2text.forms.alto import AltoWriter
from atrium_img2text.forms.hocr import HocrWriter
from atrium_img2text.forms.pdf import PdfWriter
from atrium_img2text.forms.plain import TextWriter, TsvWriter
from atrium_img2text.reading import DocumentFormat, Page, PageImage


class FormWriter(Protocol):
    """Writes one kind of document into a file, from its beginning to its end."""

    media_type: str

    def begin(self) -> None:
        """Writes what comes before the pages."""
        ...

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page."""
        ...

    def end(self) -> None:
        """Writes what comes after the pages."""
        ...


_WRITERS: Mapping[DocumentFormat, Callable[[BinaryIO], FormWriter]] = {
    DocumentFormat.TEXT: TextWriter,
    DocumentFormat.TSV: TsvWriter,
    DocumentFormat.HOCR: HocrWriter,
    DocumentFormat.ALTO: AltoWriter,
    DocumentFormat.PDF: PdfWriter,
}


@dataclass(frozen=True, slots=True, eq=False)
class WrittenForm:
    """A finished document.

    Attributes:
        file: Stands at its beginning; gone when its form is closed.
        size: Bytes.
        media_type: E.g. ``"application/pdf"``.
    """

    file: BinaryIO
    size: int
    media_type: str


class Form:
    """A document that grows page by page; its methods block, so call them in a thread.

    with open_form(DocumentFormat.PDF) as form:
        form.add(page, image)  # for each page, in order
        written = form.finish()
        ...  # its file lives until the block ends
    """

    def __init__(self, file: BinaryIO, writer: FormWriter) -> None:
        """Takes over `file`, which `writer` writes to."""
        self._file = file
        self._writer = writer
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, page: Page, image: PageImage) -> None:
        """Writes a page.

        Args:
            page: What was read of it.
            image: The page that was read; its size is `page`'s.

        Raises:
            OSError: The disk does not take it.
        """
        self._begin()
        self._writer.add(page, image)

    def finish(self) -> WrittenForm:
        """Ends the document; no page can follow. `OSError` if the disk does not take it."""
        self._begin()
        self._writer.end()
        size = self._file.tell()
        self._file.seek(0)
        return WrittenForm(self._file, size, self._writer.media_type)

    def close(self) -> None:
        """Deletes the file; safe to repeat."""
        self._file.close()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._writer.begin()


def open_form(format: DocumentFormat, folder: Path | None = None) -> Form:
    """Begins an empty document.

    Args:
        format: Which form.
        folder: Where its temporary file goes; default is the system's folder for such.

    Raises:
        OSError: There is no room for the file.
    """
    # Its form closes it.
    file = cast("BinaryIO", tempfile.TemporaryFile(prefix="atrium-form-", dir=folder))  # noqa: SIM115
    return Form(file, _WRITERS[format](file))
