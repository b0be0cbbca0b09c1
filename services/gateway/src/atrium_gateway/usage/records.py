"""What the ledger writes: one record when a reservation opens, one when it closes.

The spool stores them as JSON lines, the writer turns closing ones into rows.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from atrium_common.domain import Usage
from atrium_gateway.quota.limits import milliseconds


class Outcome(StrEnum):
    """How admitted work ended, as its caller reports it."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


REFUNDED = "refunded"
"""Outcome of work that failed before any output; charged nothing."""
EXPIRED = "expired"
"""Outcome of a lease that passed; charged as reserved, flagged estimated."""
ORPHANED = "orphaned"
"""Outcome of a reservation that a crash left open; charged as reserved, estimated."""


class Units(msgspec.Struct, frozen=True, omit_defaults=True):
    """The countable part of a usage, in whole internal counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    characters: int = 0
    input_audio_ms: int = 0
    output_audio_ms: int = 0
    images: int = 0
    millimegapixel_steps: int = 0
    pages: int = 0


class OpenRecord(msgspec.Struct, frozen=True, omit_defaults=True, tag="open", tag_field="t"):
    """A reservation as it was granted (or grown: the last one of an id holds)."""

    id: str
    tenant: str
    subject: str
    capability: str
    model: str
    method: str
    request_id: str
    started_ms: int
    reserved: Units
    key_id: str | None = None


class UsageEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag="close", tag_field="t"):
    """One line of the bill: what was reserved, what was consumed, how it ended.

    Attributes:
        requests: 1 if the request is charged; 0 if it was refunded, and in the events of
            a split settlement after the first.
        cost_nano: Price in billionths of the price book's currency.
        price_version: Version of the price book; 0 if the model has no price.
        estimated: The units are an upper estimate.
        reason: Why it was refunded or closed by the gateway, else empty.
        provider_cost_nano: What the work costs the operator, in the same billionths.
    """

    id: str
    tenant: str
    subject: str
    capability: str
    model: str
    method: str
    request_id: str
    started_ms: int
    ended_ms: int
    outcome: str
    units: Units
    reserved: Units
    requests: int = 1
    cost_nano: int = 0
    price_version: int = 0
    estimated: bool = False
    reason: str = ""
    key_id: str | None = None
    engine: str = ""
    model_digest: str = ""
    queue_ms: int = 0
    inference_ms: int = 0
    provider_cost_nano: int = 0


class SplitSettlement(msgspec.Struct, frozen=True, tag="split", tag_field="t"):
    """The events of one reservation that several models worked for.

    One record, and so one line of the spool: a crash keeps all of them or none.

    Attributes:
        events: Two or more; the first has the reservation's id.
    """

    events: tuple[UsageEvent, ...]


class ClosedElsewhere(msgspec.Struct, frozen=True, tag="elsewhere", tag_field="t"):
    """Says that another gateway process has closed a reservation, and has its events."""

    id: str


Record = OpenRecord | UsageEvent | SplitSettlement | ClosedElsewhere


def closing_record(events: Sequence[UsageEvent]) -> UsageEvent | SplitSettlement:
    """The one record of what closes a reservation: one event, or one per model."""
    return events[0] if len(events) == 1 else SplitSettlement(tuple(events))


def events_of(record: Record) -> Sequence[UsageEvent]:
    """The events that a record holds; empty for one that opens a reservation."""
    if isinstance(record, SplitSettlement):
        return record.events
    return (record,) if isinstance(record, UsageEvent) else ()


def units_of(usage: Usage) -> Units:
    """The countable part of `usage`; times are rounded up to milliseconds."""
    return Units(
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.characters,
        milliseconds(usage.input_audio) if usage.input_audio else 0,
        milliseconds(usage.output_audio) if usage.output_audio else 0,
        usage.images,
        usage.millimegapixel_steps,
        usage.pages,
    )
