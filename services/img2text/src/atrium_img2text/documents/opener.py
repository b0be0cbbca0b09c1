"""Finds out which kind of document a file is and opens it, in its turn.

The service holds one opener for all requests, so that what they decode and draw at once is
bounded.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from atrium_common.context import RequestContext
from atrium_common.errors import MediaError
from atrium_common.images import EVERY, name_format
from atrium_common.work import WorkQueue
from atrium_img2text.documents.document import Document, DocumentLimits
from atrium_img2text.documents.pdf import PdfDocument
from atrium_img2text.documents.pictures import open_picture
from atrium_img2text.documents.turns import Turns

_PDF = "PDF"
_HEAD_BYTES = 1024
"""What the formats are told apart by."""
_MAX_WAITING = 1024
"""Documents that wait for their turn; more than there are calls at once."""
_NOBODY = RequestContext(request_id="-", tenant="")


class DocumentOpener:
    """Opens uploads as documents.

    Attributes:
        limits: What is opened at most.
        decoding: The queue in front of the picture decoders.
        drawing: The queue in front of the processes that draw PDFs.
    """

    def __init__(self, limits: DocumentLimits | None = None) -> None:
        """Starts nothing; belongs to one event loop."""
        self.limits = limits or DocumentLimits()
        self.decoding = WorkQueue(slots=self.limits.max_decoding, max_queue=_MAX_WAITING)
        self.drawing = WorkQueue(slots=self.limits.max_workers, max_queue=_MAX_WAITING)
        self._resting: set[PdfDocument] = set()
        # Not the loop's own threads: those who wait for a process would keep uploads from
        # being written.
        self._threads = ThreadPoolExecutor(self.limits.max_workers, "atrium-pdf")

    @asynccontextmanager
    async def open(
        self,
        path: Path,
        *,
        field: str = "chunk",
        pdf: bool = True,
        caller: RequestContext | None = None,
    ) -> AsyncIterator[Document]:
        """Opens a file as the document that it is by its content.

        Args:
            path: The upload; it has to stay there while the block runs.
            field: Names the upload in refusals.
            pdf: Whether a PDF is taken, too, not pictures alone.
            caller: Whose document it is, for its turn and deadline; nobody's by default.

        Raises:
            MediaError: The file is of no kind that is taken, over a limit (reason
                ``"TOO_MANY_PAGES"`` where its pages are), encrypted (reason
                ``"ENCRYPTED_DOCUMENT"``), damaged, or takes too long to open (reason
                ``"PAGE_TIMEOUT"``).
            Overloaded: Too many documents wait for their turn.
            DeadlineExceeded: The caller's deadline passes first.
        """
        name, size = await asyncio.to_thread(_look_at, path, self.limits, field)
        caller = caller or _NOBODY
        if name in EVERY:
            turns = Turns(self.decoding, caller)
            yield await open_picture(path, name, self.limits, size=size, field=field, turns=turns)
        elif name == _PDF and pdf:
            opening = PdfDocument.open(
                path,
                self.limits,
                field=field,
                turns=Turns(self.drawing, caller),
                threads=self._threads,
                resting=self._resting,
            )
            async with opening as document:
                yield document
        else:
            what = f"a file of the format {name}" if name else "of no format that is known"
            taken = f"{', '.join(EVERY)} and {_PDF}" if pdf else ", ".join(EVERY)
            raise MediaError(f"The upload is {what}; {taken} are taken.", field=field)


def _look_at(path: Path, limits: DocumentLimits, field: str) -> tuple[str | None, int]:
    """Returns the format and the bytes of a file that is not too large, nor empty."""
    size, most = path.stat().st_size, limits.images.max_bytes
    if not 0 < size <= most:
        text = f"The upload has more than {most} bytes." if size else "The upload is empty."
        raise MediaError(text, field=field)
    with path.open("rb") as file:
        return name_format(file.read(_HEAD_BYTES)), size
