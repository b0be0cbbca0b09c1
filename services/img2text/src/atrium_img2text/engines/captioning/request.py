"""One request and its rows as the engine's thread sees them, and the way to its reader.

`captioner.py` makes a `Request`, the loop and its batches alone change it afterwards; only
`cancelled` is set from outside, and `mailbox` belongs to the event loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from atrium_common.errors import AtriumError
from atrium_img2text.domain import Counts, FinishReason
from atrium_img2text.engines.captioning.model import Prepared
from atrium_img2text.engines.captioning.plan import Draws, GenerationPlan
from atrium_img2text.engines.captioning.text import TextWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text that is complete.

    Attributes:
        text: Without space around it.
        average_logprob: Mean natural logarithm of its tokens' probabilities, the end token's
            included, as the model gave them: before penalty and temperature.
        finish_reason: Why it ended.
    """

    text: str
    average_logprob: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a reader is told.

    Attributes:
        counts: What was consumed so far.
        text: To append; only where there is one candidate and no beam search.
        candidates: All of them, the likeliest first; in the last news only.
    """

    counts: Counts
    text: str = ""
    candidates: Sequence[Candidate] = ()


class Mailbox:
    """News on its way to one reader; touched on the event loop only.

    What lies unread is joined into one, so that a slow reader costs no memory. The first
    news, that picture and prompt were read, stays by itself.
    """

    def __init__(self) -> None:
        """Makes an empty mailbox."""
        self._first: Progress | None = None
        self._opened = False
        self._joined: Progress | None = None
        self._end: AtriumError | None = None
        self._news = asyncio.Event()
        self.ended = False

    def put(self, progress: Progress) -> None:
        """Adds news."""
        if not self._opened:
            self._opened, self._first = True, progress
        elif self._joined is None:
            self._joined = progress
        else:
            self._joined = replace(progress, text=self._joined.text + progress.text)
        self._news.set()

    def end(self, error: AtriumError | None) -> None:
        """Says that nothing more comes, because of `error` if there was one."""
        if not self.ended:
            self.ended, self._end = True, error
            self._news.set()

    async def get(self) -> Progress | None:
        """Waits for news; ``None`` at the end.

        Raises:
            AtriumError: The request failed. What came before is given first.
        """
        while self._first is None and self._joined is None and not self.ended:
            self._news.clear()
            await self._news.wait()
        if self._first is not None:
            progress, self._first = self._first, None
            return progress
        if self._joined is not None:
            progress, self._joined = self._joined, None
            return progress
        if self._end is not None:
            raise self._end
        return None

    async def drained(self) -> None:
        """Waits for the end, whatever it is."""
        while not self.ended:
            self._news.clear()
            await self._news.wait()


@dataclass(eq=False, slots=True)
class Row:
    """One text that is to be made, or all those of one beam search.

    Attributes:
        tokens: What was chosen so far, the end token included. A batch that begins again
            after memory ran out says these once more before it chooses anew.
        logprob: Sum over the tokens.
        ended: True once nothing more is chosen.
    """

    request: "Request"
    draws: Draws
    writer: TextWriter
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    ended: bool = False

    @property
    def live(self) -> bool:
        """True while somebody waits for more of it."""
        return not self.ended and not self.request.released

    @property
    def beams(self) -> int:
        """How many rows of the device it takes."""
        return self.request.plan.beams


@dataclass(eq=False, slots=True)
class Request:
    """One description or question.

    Attributes:
        limit: Most tokens of each candidate, 1 or more: the plan's, or what the context
            window leaves.
        begun: When its first batch began, by the loop's clock.
        fresh: Text that was not told yet.
        told: Output tokens that were told.
        cancelled: Set by the reader's side when it leaves.
    """

    prepared: Prepared
    plan: GenerationPlan
    limit: int
    mailbox: Mailbox
    rows: list[Row] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    begun: float | None = None
    fresh: str = ""
    output_tokens: int = 0
    told: int = -1
    cancelled: bool = False
    released: bool = False

    @classmethod
    def of(
        cls, prepared: Prepared, plan: GenerationPlan, decode: Callable[[Sequence[int]], str]
    ) -> "Request":
        """Makes a request: of beam search one row, else one for each candidate."""
        limit = min(plan.max_tokens, prepared.room)
        request = cls(prepared, plan, limit, Mailbox())
        rows = plan.candidates if plan.beams == 1 else 1
        request.rows = [Row(request, Draws(plan.seed, n), TextWriter(decode)) for n in range(rows)]
        return request

    @property
    def streams(self) -> bool:
        """True if text can be told before all of it is there."""
        return self.plan.beams == 1 and len(self.rows) == 1

    @property
    def complete(self) -> bool:
        """True when every row has ended."""
        return all(row.ended for row in self.rows)

    def news(self, now: float) -> Progress | None:
        """Takes what was not told yet, if anything; the first news comes before any token."""
        if self.told == self.output_tokens and not self.complete:
            return None
        begun = now if self.begun is None else self.begun
        text, self.fresh, self.told = self.fresh, "", self.output_tokens
        counts = Counts(
            input_tokens=self.prepared.input_tokens,
            output_tokens=self.output_tokens,
            inference=timedelta(seconds=now - begun),
        )
        ordered = sorted(self.candidates, key=lambda candidate: -candidate.average_logprob)
        return Progress(counts=counts, text=text, candidates=ordered if self.complete else ())
