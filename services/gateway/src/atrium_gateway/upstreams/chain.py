"""Several calls of a service, one after the other, as one.

A list of prompts is that, and embeddings that are too many for one message.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Generic, TypeVar

from atrium_common.domain import Usage
from atrium_gateway.upstreams.port import UpstreamCall

E = TypeVar("E")


class ChainedCalls(Generic[E]):
    """Runs calls in order; events tell which call they come from, usage is the sum."""

    def __init__(self, starts: Sequence[Callable[[], UpstreamCall[E]]]) -> None:
        """Args: starts: What begins each call; at least one."""
        self._starts = starts
        self._at = 0
        self._call = starts[0]()
        self._before: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """What all calls have consumed so far."""
        return total(self._before, self._call.usage)

    @property
    def usage_by_model(self) -> Sequence[Usage]:
        """Empty: all calls are of one model."""
        return ()

    def __aiter__(self) -> "ChainedCalls[E]":
        return self

    async def __anext__(self) -> tuple[int, E]:
        """Waits for the next message and tells the index of its call."""
        while True:
            try:
                return self._at, await anext(self._call)
            except StopAsyncIteration:
                if self._at + 1 == len(self._starts):
                    raise
            self._before = self.usage
            self._at += 1
            self._call = self._starts[self._at]()

    def cancel(self) -> None:
        """Ends the running call; no other one begins."""
        self._call.cancel()

    def inquiry(self) -> Coroutine[object, object, None] | None:
        """What the running call has to ask; the ones before have told their usage."""
        return self._call.inquiry()


def total(first: Usage | None, second: Usage | None) -> Usage | None:
    """Adds what two pieces of text work on the same model consumed."""
    if first is None or second is None:
        return first or second
    return Usage(
        model=second.model,
        model_digest=second.model_digest,
        engine=second.engine,
        queue_time=first.queue_time + second.queue_time,
        inference_time=first.inference_time + second.inference_time,
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cached_input_tokens=first.cached_input_tokens + second.cached_input_tokens,
        estimated=first.estimated or second.estimated,
    )
