"""Reads the pages of one document: several at once, each in its turn, given in order.

`extracting.py` calls this. Pages enter the engine's queue one by one, so that a long
document shares with others. A page is drawn when it has its seat, the first one before:
so a document that can't be read is refused before anything is sent, and all documents
together hold few pages.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from atrium_common.context import RequestContext
from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, InvalidArgument, Overloaded
from atrium_common.images import size_of
from atrium_common.intake import HeldPixels
from atrium_common.work import Ticket
from atrium_img2text.documents import Document
from atrium_img2text.engines.base import ReadingEngine
from atrium_img2text.forming import Forming
from atrium_img2text.reading import Page, PageImage, ReadingOrder
from atrium_img2text.seats import Seats
from atrium_img2text.steps import Extracted, Opening, Report, Step

_LONGEST_PAUSE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadingJob:
    """A document to read.

    Attributes:
        order: How.
        document: Opened; nobody else asks it for pages while it is read.
        caller: Whose it is.
        report: Hears of what was consumed.
        first: The first page to be read, where that is decoded already.
    """

    order: ReadingOrder
    document: Document
    caller: RequestContext
    report: Report
    first: PageImage | None = None

    @property
    def pages(self) -> range:
        """Numbers of those that are read.

        Raises:
            InvalidArgument: The document has not so many.
        """
        order, pages = self.order, self.document.info.pages
        if order.first_page > pages:
            raise InvalidArgument(f"The document has {pages} pages.", field="first_page")
        return range(order.first_page, min(order.first_page + order.max_pages, pages + 1))


class PageReader:
    """One document that is being read.

    Attributes:
        usage: What was consumed so far.
    """

    def __init__(
        self,
        job: ReadingJob,
        engine: ReadingEngine,
        seats: Seats,
        *,
        held: HeldPixels,
        form: Forming | None,
    ) -> None:
        """Starts nothing.

        Args:
            job: What to read.
            engine: Who reads.
            seats: Where each page waits for its seat.
            held: Counts the first page while it waits.
            form: Gets the pages, in order; each before it is given.
        """
        self._job = job
        self._engine = engine
        self._seats = seats
        self._held = held
        self._form = form
        self.usage: Usage = seats.label(job.order.model)
        self._told = self.usage
        self._drawing = asyncio.Lock()
        self._seated = False
        self._news = asyncio.Event()
        self._cost = 1
        self._tasks: deque[asyncio.Task[Page]] = deque()

    async def read(self) -> AsyncGenerator[Step[Extracted | None], None]:
        """Reads the pages; closing it returns once the engine has let go of them.

        Yields:
            The opening once the first page has its seat, then each page; steps without a
            result where others were read before the next one.

        Raises:
            AtriumError: As `Extracting.read`.
        """
        pages = self._job.pages
        ahead = iter(pages)
        try:
            self._start(next(ahead))
            await self._until(lambda: self._seated or self._tasks[0].done())
            if not self._seated:
                self._tasks[0].result()  # raises what kept it from its seat
            yield self._step(Opening(self._job.document.info, len(pages)))
            for _ in pages:
                self._fill(ahead)
                while not await self._next_is_read():
                    yield self._step(None)
                yield self._step(self._tasks.popleft().result())
        except AtriumError:
            await self._stop()
            if self.usage != self._told:  # for pages that were read ahead
                yield self._step(None)
            raise
        finally:
            await self._stop()

    def _fill(self, ahead: Iterator[int]) -> None:
        """Starts pages until as many are on their way as are read at once."""
        while len(self._tasks) < self._engine.scheduling.slots:
            number = next(ahead, None)
            if number is None:
                return
            self._start(number)

    def _start(self, number: int) -> None:
        before = self._tasks[-1] if self._tasks else None
        task = asyncio.create_task(self._page(number, before))
        task.add_done_callback(lambda _: self._news.set())
        self._tasks.append(task)

    async def _stop(self) -> None:
        """Cancels the pages that are being read; returns once they are let go of."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def _next_is_read(self) -> bool:
        """Waits for the next page in order, or until one after it was read before."""
        following = self._tasks[0]
        await self._until(lambda: following.done() or self.usage != self._told)
        return following.done()

    async def _page(self, number: int, before: asyncio.Task[Page] | None) -> Page:
        """Reads a page, and adds it to the form when the one before it is there."""
        if number == self._job.order.first_page:
            page, image = await self._read_first(number)
        else:
            async with self._later_seat():
                image = await self._draw(number)
                page = await self._read(image)
        if self._form is not None:
            if before is not None:
                await asyncio.wait({before})
            await self._form.add(page, image)
        return page

    async def _read_first(self, number: int) -> tuple[Page, PageImage]:
        job = self._job
        with self._held.holding(job.caller.tenant) as hold:
            image = job.first or await self._draw(number)
            self._cost = size_of(image.pixels).pixels
            if job.first is None:
                hold(self._cost)
            async with self._seat() as ticket:
                self.usage = replace(self.usage, queue_time=ticket.queue_time)
                self._seated = True
                self._news.set()
                return await self._read(image), image

    async def _read(self, image: PageImage) -> Page:
        page = await self._engine.read(image, self._job.order)
        self.usage = replace(
            self.usage,
            pages=self.usage.pages + 1,
            inference_time=self.usage.inference_time + page.inference,
        )
        self._job.report(self.usage)
        self._news.set()
        return page

    async def _draw(self, number: int) -> PageImage:
        async with self._drawing:  # a document gives one page at a time
            image = await self._job.document.page(number, resolution=self._job.order.resolution)
        self._cost = size_of(image.pixels).pixels
        return image

    def _seat(self) -> AbstractAsyncContextManager[Ticket]:
        """Waits for the seat of a page that is as large as the latest one."""
        job = self._job
        return self._seats.enter(job.order.model, cost=self._cost, caller=job.caller)

    @asynccontextmanager
    async def _later_seat(self) -> AsyncIterator[None]:
        """Waits for the seat of a page that is not the first.

        A document that has begun goes on: where the queue is full, its next page comes
        again a little later.
        """
        async with AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(self._seat())
                    break
                except Overloaded as error:
                    pause = min(error.retry_after or _LONGEST_PAUSE, _LONGEST_PAUSE)
                    await asyncio.sleep(pause.total_seconds())
            yield

    def _step(self, result: Extracted | None) -> Step[Extracted | None]:
        self._told = self.usage
        return Step(result, self.usage)
