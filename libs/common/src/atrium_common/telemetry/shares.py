"""What a request's trace tells of the batches that it ran in; `BatchingLoop` keeps it."""

from typing import Self

from opentelemetry import trace

from atrium_common.telemetry import semantics


class BatchShare:
    """Gathers in the engine's thread, for the span that was present when a request came."""

    __slots__ = ("_most", "_rows", "_span", "_steps")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._steps = self._rows = self._most = 0

    @classmethod
    def of_present_span(cls) -> Self | None:
        """Begins for the caller's span; ``None`` where nobody records it."""
        span = trace.get_current_span()
        return cls(span) if span.is_recording() else None

    def add(self, rows: int) -> None:
        """Counts a step that the request was in, with so many rows in all."""
        self._steps += 1
        self._rows += rows
        self._most = max(self._most, rows)

    def tell(self) -> None:
        """Writes it into the span, which its reader has not ended yet."""
        self._span.set_attributes(
            {
                semantics.BATCH_STEPS: self._steps,
                semantics.BATCH_MEAN: self._rows / max(1, self._steps),
                semantics.BATCH_MOST: self._most,
            }
        )
