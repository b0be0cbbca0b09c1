"""What a document offers, whatever file it came as, and what is opened at most."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from atrium_common.images import ImageLimits
from atrium_img2text.reading import DEFAULT_RESOLUTION, DocumentInfo, PageImage


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """What is opened at most.

    Attributes:
        images: Of a picture, and of each page of a TIFF; its `max_bytes` hold for every
            document.
        max_document_pages: A document with more is refused.
        max_page_pixels: Of a drawn page of a PDF; a larger one is drawn at a lower
            resolution.
        page_time: How long opening a PDF, and drawing one of its pages, may take.
        memory_mib: Address space of the process that draws a PDF, 256 or more.
        max_workers: PDFs that are drawn at once; others wait in fair order.
        max_decoding: Pictures and pages of TIFFs that are decoded at once.
    """

    images: ImageLimits = field(default_factory=ImageLimits)
    max_document_pages: int = 200
    max_page_pixels: int = 36_000_000
    page_time: timedelta = timedelta(seconds=20)
    memory_mib: int = 1024
    max_workers: int = 4
    max_decoding: int = 2


class Document(Protocol):
    """An opened document; usable while the block that opened it runs, one call at a time."""

    @property
    def info(self) -> DocumentInfo:
        """How many pages it has, and what it is by its content."""
        ...

    async def page(self, number: int, *, resolution: int = DEFAULT_RESOLUTION) -> PageImage:
        """Decodes or draws a page.

        Args:
            number: From 1 to `info.pages`.
            resolution: Pixels per inch at which a page of a PDF is drawn, 72 to 600. One
                with too many pixels is drawn at a lower one, and the page's own
                `resolution` says at which. Pictures have the pixels that they have.

        Raises:
            MediaError: The page is damaged, too large, or takes too long (reason
                ``"PAGE_TIMEOUT"``).
            Overloaded: Too many documents wait for their turn.
            DeadlineExceeded: The caller's deadline passes first.
        """
        ...

    async def first_picture(self) -> PageImage:
        """Returns the first page, to be described: `page` with what it can raise."""
        ...
