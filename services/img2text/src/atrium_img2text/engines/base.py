"""What the service asks of its engines: some see (captions, answers), some read (text).

An engine is plain Python that a script can use. The servicer calls `check_...` before the
upload is read, then the method of the same kind once the picture is there. A model that is
not loaded passes the check as far as it can be told; the method loads it and looks again.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from atrium_common.engine import Engine
from atrium_common.work import Batching, Serial
from atrium_img2text.domain import (
    AnswerEvent,
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    QuestionJob,
    QuestionOrder,
)
from atrium_img2text.reading import Page, PageImage, ReadingOrder


class ScheduledEngine(Engine, Protocol):
    """What every engine of the service says of itself."""

    scheduling: Serial | Batching


@runtime_checkable
class VisionEngine(ScheduledEngine, Protocol):
    """Says in words what a picture shows."""

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses what the model can't do.

        Raises:
            InvalidArgument: `field` names what is refused, e.g. ``"prefix"`` or
                ``"sampling.beams"``.
            Unavailable: The model has failed, or the engine is closed.
        """
        ...

    def check_question(self, order: QuestionOrder) -> None:
        """As `check_description`, for a question."""
        ...

    def describe(self, job: DescriptionJob) -> AsyncIterator[DescriptionEvent]:
        """Describes a picture; closing the iterator stops the work within one step."""
        ...

    def answer(self, job: QuestionJob) -> AsyncIterator[AnswerEvent]:
        """Answers a question as the words come; closing the iterator stops the work."""
        ...


@runtime_checkable
class ReadingEngine(ScheduledEngine, Protocol):
    """Reads the text of pages. Its `scheduling` has as many slots as pages are read at once."""

    def languages(self, model: str) -> Sequence[str]:
        """Returns the ISO 639-3 codes that are installed, sorted; known once it was loaded."""
        ...

    def check_reading(self, order: ReadingOrder) -> None:
        """Refuses what the model can't do.

        Raises:
            InvalidArgument: A language is not installed, or a layout is not offered;
                `field` names it, e.g. ``"languages[1]"``.
            Unavailable: The model has failed, or the engine is closed.
        """
        ...

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Reads a page. A cancelled call returns once the engine has let go of the page.

        Raises:
            MediaError: Reading took longer than the limit for a page; the reason is
                ``"PAGE_TIMEOUT"``.
        """
        ...
