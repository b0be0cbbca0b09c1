"""A PDF as a document, drawn by a process that holds one of a few turns. The opener makes it.

The process lives from page to page, so that a document is opened once. When others wait for
a turn, it gives way, after a page or while it rests between two, and is started again later:
neither a long document nor one whose reader is slow keeps another waiting.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from atrium_common.errors import MediaError
from atrium_img2text.documents.document import DocumentLimits
from atrium_img2text.documents.pdf_process import (
    DrawingBounds,
    PdfProcess,
    ProcessLost,
    ProcessRefused,
)
from atrium_img2text.documents.refusals import too_many_pages
from atrium_img2text.documents.turns import Turns
from atrium_img2text.reading import DEFAULT_RESOLUTION, DocumentInfo, PageImage

T = TypeVar("T")

CONTENT_TYPE = "application/pdf"


class PdfDocument:
    """An opened PDF.

    One that opens without a password does so, though it may be encrypted: every viewer
    opens it, too.
    """

    def __init__(
        self,
        path: Path,
        limits: DocumentLimits,
        *,
        field: str,
        turns: Turns,
        threads: Executor,
        resting: "set[PdfDocument]",
    ) -> None:
        """Starts nothing; `open` does."""
        self._path = path
        self._limits = limits
        self._field = field
        self._turns = turns
        self._threads = threads
        self._resting = resting
        self._turn = AsyncExitStack()
        self._process: PdfProcess | None = None
        self._pages = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        limits: DocumentLimits,
        *,
        field: str,
        turns: Turns,
        threads: Executor,
        resting: "set[PdfDocument]",
    ) -> AsyncIterator[Self]:
        """Opens a file; its process has ended when the block has.

        Args:
            path: The file.
            limits: What is opened.
            field: Names the upload in refusals.
            turns: Where it waits before it starts a process.
            threads: Where processes are waited for; as many as there are turns.
            resting: Shared by all that share turns: those who hold one and draw nothing.

        Raises:
            MediaError: It is encrypted, damaged, has too many pages, or takes too long.
        """
        document = cls(path, limits, field=field, turns=turns, threads=threads, resting=resting)
        try:
            await document._drawing()
            await document._rest()
            yield document
        finally:
            await document._let_go()

    @property
    def info(self) -> DocumentInfo:
        """As `Document.info`."""
        return DocumentInfo(pages=self._pages, content_type=CONTENT_TYPE)

    async def page(self, number: int, *, resolution: int = DEFAULT_RESOLUTION) -> PageImage:
        """As `Document.page`."""
        if not 1 <= number <= self._pages:
            raise self._refusal(f"The PDF has {self._pages} pages, not {number}.")
        self._resting.discard(self)
        process = await self._drawing()
        what = f"Page {number} of the PDF"
        try:
            drawn = await self._answer(process, partial(process.draw, number - 1, resolution), what)
        finally:
            await self._rest()
        return PageImage(number=number, pixels=drawn.pixels, resolution=drawn.resolution)

    async def first_picture(self) -> PageImage:
        """As `Document.first_picture`."""
        return await self.page(1)

    async def _drawing(self) -> PdfProcess:
        """Returns the process, started in its turn if there is none."""
        if self._process is not None:
            return self._process
        while self._resting and self._turns.queue.running >= self._limits.max_workers:
            await next(iter(self._resting))._let_go()
        await self._turn.enter_async_context(self._turns.enter(cost=1))
        limits = self._limits
        bounds = DrawingBounds(
            max_pixels=limits.max_page_pixels,
            max_side=limits.images.max_side,
            seconds=limits.page_time.total_seconds(),
        )
        self._process = process = PdfProcess(bounds, memory_mib=limits.memory_mib)
        self._turn.push_async_callback(self._in_thread, process.close)
        await self._in_thread(process.start)
        pages = await self._answer(process, partial(process.open, self._path), "The PDF")
        if pages > limits.max_document_pages:
            raise too_many_pages(limits.max_document_pages, self._field)
        self._pages = pages
        return process

    async def _rest(self) -> None:
        """Keeps the process, if it lives, for the next page, unless others wait for a turn."""
        if self._turns.queue.depth:
            await self._let_go()
        elif self._process is not None:
            self._resting.add(self)

    async def _let_go(self) -> None:
        """Ends the process and the turn."""
        self._resting.discard(self)
        self._process = None
        # Another one may end this turn while this one waits for its next.
        turn, self._turn = self._turn, AsyncExitStack()
        await turn.aclose()

    async def _answer(self, process: PdfProcess, work: Callable[[], T], what: str) -> T:
        """Waits for an answer of the process; one that takes too long ends it.

        Raises:
            MediaError: There is none; `what` it was about is in its text.
        """
        limit = self._limits.page_time.total_seconds()
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(working)
        except TimeoutError as err:
            text = f"{what} takes longer than {limit:g} s."
            raise self._refusal(text, reason="PAGE_TIMEOUT") from err
        except ProcessLost as err:
            await self._let_go()
            raise self._refusal(f"{what} is damaged, or asks for too much.") from err
        except ProcessRefused as err:
            raise self._refused(str(err), what) from err
        finally:
            if not working.done():  # too long, or the caller left
                process.kill()
                await asyncio.wait({working})
                working.exception()
                await self._let_go()

    def _refused(self, why: str, what: str) -> MediaError:
        if why == "encrypted":
            return self._refusal("The PDF needs a password.", reason="ENCRYPTED_DOCUMENT")
        if why == "large":
            return self._refusal(f"{what} is too large to be drawn.")
        return self._refusal(f"{what} is cut or damaged.")

    def _refusal(self, text: str, *, reason: str | None = None) -> MediaError:
        return MediaError(text, reason=reason, field=self._field)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Starts or ends the process; a caller who is cancelled waits until that is done."""
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            await asyncio.shield(working)
        finally:
            await asyncio.wait({working})
