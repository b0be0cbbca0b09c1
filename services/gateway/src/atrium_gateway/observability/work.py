"""The span of a job at its service, and what it tells; `pipeline.py` enters it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from opentelemetry.trace import Span, SpanKind

from atrium_common.domain import Usage
from atrium_common.telemetry.semantics import (
    CANCELLED,
    OPERATION,
    usage_attributes,
    work_attributes,
)
from atrium_common.telemetry.spans import SILENCE, hop, is_recorded
from atrium_gateway.admission import Outcome


class Told(Protocol):
    """What is read of a run."""

    @property
    def usage(self) -> Usage:
        """What was consumed so far."""
        ...

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        ...


def upstream(capability: str, model: str) -> AbstractContextManager[Span]:
    """Makes the block a job's call of its service, where spans are recorded."""
    if not is_recorded():
        return SILENCE
    attributes = work_attributes(capability, model)
    return hop(f"{attributes[OPERATION]} {model}", attributes, kind=SpanKind.CLIENT)


def telling(span: Span, run: Told) -> AbstractContextManager[object]:
    """Says in `span` what a run consumed, however the block ends."""
    return _telling(span, run) if span.is_recording() else SILENCE


@contextmanager
def _telling(span: Span, run: Told) -> Iterator[None]:
    try:
        yield
    finally:
        span.set_attributes(usage_attributes(run.usage))
        if run.outcome is Outcome.CANCELLED:
            span.set_attribute(CANCELLED, True)
