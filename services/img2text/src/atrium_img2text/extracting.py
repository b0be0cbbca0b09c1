"""Reads the text of documents: their pages, and the form of the whole where one is asked for.

The servicer and `analysing.py` call this.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from pathlib import Path

from atrium_common.intake import HeldPixels
from atrium_img2text.engines.router import SightRouter
from atrium_img2text.forming import Forming
from atrium_img2text.pages import PageReader, ReadingJob
from atrium_img2text.seats import Seats
from atrium_img2text.steps import Extracted, Step


class Extracting:
    """Lets the engines that read do their work."""

    def __init__(
        self,
        engines: SightRouter,
        seats: Seats,
        *,
        held: HeldPixels,
        folder: Path | None = None,
    ) -> None:
        """Takes what all readings share.

        Args:
            engines: The engines.
            seats: The seats at them.
            held: Counts the first pages that wait for a seat.
            folder: Where forms are written; ``None`` takes the system's.
        """
        self._engines = engines
        self._seats = seats
        self._held = held
        self._folder = folder

    async def read(self, job: ReadingJob) -> AsyncGenerator[Step[Extracted | None], None]:
        """Reads a document; closing it returns once the engine has let go of its pages.

        Yields:
            The opening, the pages, and the form's bytes; see `PageReader.read`.

        Raises:
            InvalidArgument: The document has not so many pages.
            MediaError: A page can't be decoded, or takes too long.
            Overloaded: There is no room for its first page.
            DeadlineExceeded: The caller's deadline passes first.
            Unavailable: There is no room on the disk for the form.
        """
        order = job.order
        engine = self._engines.reading(order.model)
        form = Forming(order.form, self._folder) if order.form is not None else None
        with form or nullcontext():
            reader = PageReader(job, engine, self._seats, held=self._held, form=form)
            async with aclosing(reader.read()) as steps:
                async for step in steps:
                    yield step
            if form is not None:
                async with aclosing(form.pieces()) as pieces:
                    async for piece in pieces:
                        yield Step(piece, reader.usage)
