"""One request and its choices as the engine thread sees them.

`generator.py` makes a `Request`, the loop alone changes it afterwards; only `cancelled`
is set from outside, and `mailbox` belongs to the event loop.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError
from atrium_llm.domain import ChoiceDelta, GenerationEvent
from atrium_llm.engines.hf.attention import KeyValues
from atrium_llm.sampling import Draws, SamplingPlan
from atrium_llm.stopping import TextStream
from atrium_llm.structured import Constraint
from atrium_llm.tools import ToolCallReader


class Mailbox:
    """Events on their way to one reader; touched on the event loop only.

    Events that lie unread are joined into one, so that a slow reader costs no memory
    and is never behind by more than one event.
    """

    def __init__(self) -> None:
        """Makes an empty mailbox."""
        self._first: GenerationEvent | None = None
        self._joined: deque[GenerationEvent] = deque()
        self._end: AtriumError | None = None
        self._ended = False
        self._news = asyncio.Event()

    def put(self, event: GenerationEvent) -> None:
        """Adds an event. The one without deltas that follows prefill stays separate."""
        if self._first is None and not event.deltas and not self._joined:
            self._first = event
        else:
            self._joined.append(event)
        self._news.set()

    def end(self, error: AtriumError | None) -> None:
        """Says that nothing more comes, because of `error` if there was one."""
        if not self._ended:
            self._ended, self._end = True, error
            self._news.set()

    @property
    def ended(self) -> bool:
        """True once the engine has let go of the request."""
        return self._ended

    async def get(self) -> GenerationEvent | None:
        """Waits for the next event; ``None`` at the end.

        Raises:
            AtriumError: The generation failed.
        """
        await self._news.wait()
        if self._first is not None:
            event, self._first = self._first, None
        elif self._joined:
            event = self._join()
        elif self._end is not None:
            raise self._end
        else:
            return None
        if not self._joined and not self._ended:
            self._news.clear()
        return event

    async def drained(self) -> None:
        """Waits for the end, whatever it is."""
        while not self._ended:
            self._news.clear()
            await self._news.wait()

    def _join(self) -> GenerationEvent:
        events = tuple(self._joined)
        self._joined.clear()
        if len(events) == 1:
            return events[0]
        deltas = [delta for event in events for delta in event.deltas]
        return GenerationEvent(deltas=deltas, usage=events[-1].usage)


@dataclass(eq=False, slots=True)
class Choice:
    """One text that grows.

    Attributes:
        tokens: Prompt and what was generated.
        cache: Keys and values of the first `cache.length` tokens.
        generated: Tokens generated.
        counts: How often each token was generated; kept only where penalties need it.
    """

    request: "Request"
    index: int
    tokens: list[int]
    cache: KeyValues
    draws: Draws
    text: TextStream
    constraint: Constraint | None
    tools: ToolCallReader | None
    generated: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    ended: bool = False

    @property
    def missing(self) -> int:
        """Tokens that the cache does not hold yet; 1 for a choice that decodes."""
        return len(self.tokens) - self.cache.length

    @property
    def order(self) -> tuple[int, int]:
        """Who came first."""
        return (self.request.number, self.index)


@dataclass(eq=False, slots=True)
class Request:
    """One generation.

    Attributes:
        number: Order of arrival.
        prompt: Token ids.
        limit: Most tokens per choice.
        echo: Text that stands before each choice.
        usage: What was consumed so far; the loop keeps it current.
        cancelled: Set by the reader's side when it leaves.
        forks: Choices that begin when the first one has read the prompt.
    """

    number: int
    prompt: Sequence[int]
    plan: SamplingPlan
    limit: int
    echo: str
    usage: Usage
    mailbox: Mailbox
    choices: list[Choice] = field(default_factory=list)
    forks: list[Choice] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)
    admitted: float | None = None
    read: bool = False
    cancelled: bool = False
    released: bool = False
    output_tokens: int = 0

    def usage_now(self) -> Usage:
        """Returns the cumulative usage at this moment."""
        admitted = self.admitted if self.admitted is not None else time.monotonic()
        return replace(
            self.usage,
            queue_time=timedelta(seconds=admitted - self.arrived),
            inference_time=timedelta(seconds=time.monotonic() - admitted),
            input_tokens=len(self.prompt) if self.read else 0,
            output_tokens=self.output_tokens,
        )

    def event(self, deltas: Sequence[ChoiceDelta] = ()) -> GenerationEvent:
        """Makes an event of this moment."""
        return GenerationEvent(deltas=deltas, usage=self.usage_now())

    @property
    def ended(self) -> bool:
        """True when every choice has ended."""
        return all(choice.ended for choice in self.choices)
