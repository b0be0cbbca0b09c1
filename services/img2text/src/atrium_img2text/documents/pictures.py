"""Pictures and TIFFs as documents, decoded page by page in threads. The opener makes them."""

from functools import partial
from pathlib import Path

from atrium_common.images import EVERY, count_tiff_pages, read_bytes, read_picture
from atrium_common.intake import in_thread
from atrium_img2text.documents.document import DocumentLimits
from atrium_img2text.documents.refusals import too_many_pages
from atrium_img2text.documents.turns import Turns
from atrium_img2text.reading import DEFAULT_RESOLUTION, DocumentInfo, PageImage

_TIFF = "TIFF"


class PictureDocument:
    """A picture file: one page, or as many as a TIFF has."""

    def __init__(
        self,
        path: Path,
        info: DocumentInfo,
        limits: DocumentLimits,
        *,
        size: int,
        field: str,
        turns: Turns,
    ) -> None:
        """Reads nothing; `open_picture` finds out the pages."""
        self._path = path
        self._info = info
        self._size = size
        self._limits = limits
        self._field = field
        self._turns = turns

    @property
    def info(self) -> DocumentInfo:
        """As `Document.info`."""
        return self._info

    async def page(self, number: int, *, resolution: int = DEFAULT_RESOLUTION) -> PageImage:
        """As `Document.page`; `resolution` has no effect."""
        async with self._turns.enter(cost=self._size):
            return await in_thread(partial(self._decode, number))

    async def first_picture(self) -> PageImage:
        """As `Document.first_picture`."""
        return await self.page(1)

    def _decode(self, number: int) -> PageImage:
        picture = read_picture(
            self._path,
            limits=self._limits.images,
            field=self._field,
            formats=EVERY,
            page=number,
        )
        return PageImage(number=number, pixels=picture.opaque(), resolution=picture.resolution)


async def open_picture(
    path: Path, name: str, limits: DocumentLimits, *, size: int, field: str, turns: Turns
) -> PictureDocument:
    """Opens a picture file of the format `name`, of `size` bytes.

    Raises:
        MediaError: It is a TIFF with too many pages, or a damaged one. Other damage shows
            when a page is decoded.
    """
    pages = 1
    if name == _TIFF:
        async with turns.enter(cost=size):
            pages = await in_thread(partial(_count, path, limits, field))
    info = DocumentInfo(pages=pages, content_type=f"image/{name.lower()}")
    return PictureDocument(path, info, limits, size=size, field=field, turns=turns)


def _count(path: Path, limits: DocumentLimits, field: str) -> int:
    most = limits.max_document_pages
    data = read_bytes(path, limits=limits.images, field=field)
    pages = count_tiff_pages(data, most=most, field=field)
    if pages > most:
        raise too_many_pages(most, field)
    return pages
