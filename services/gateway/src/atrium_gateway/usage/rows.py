"""How an event lies in the database: one row, its counts in the order of the tables."""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import String

from atrium_gateway.database import DriverValue
from atrium_gateway.usage.records import UsageEvent
from atrium_gateway.usage.tables import COUNTS, usage_events

_JSON = msgspec.json.Encoder()
_LENGTHS: Final[Mapping[str, int]] = {
    column.name: column.type.length
    for column in usage_events.columns
    if isinstance(column.type, String) and column.type.length and not column.nullable
}


def counts_of(event: UsageEvent) -> tuple[int, ...]:
    """The summed columns of an event, in the order of `COUNTS`."""
    units = event.units
    return (
        event.requests,
        units.input_tokens,
        units.output_tokens,
        units.cached_input_tokens,
        units.characters,
        units.input_audio_ms,
        units.output_audio_ms,
        units.images,
        units.millimegapixel_steps,
        units.pages,
        event.inference_ms,
        event.cost_nano,
    )


def storable(event: UsageEvent) -> UsageEvent:
    """`event` with texts that the database takes: cut to its columns, without NUL.

    One text that it refused would keep all that follows out of it, for ever.
    """
    unfit = {
        name: text.replace("\0", "")[:length]
        for name, length in _LENGTHS.items()
        if len(text := getattr(event, name)) > length or "\0" in text
    }
    return msgspec.structs.replace(event, **unfit) if unfit else event


def event_row(event: UsageEvent) -> dict[str, DriverValue]:
    """The row of an event, every column of `usage_events`."""
    return {
        "id": event.id,
        "tenant": event.tenant,
        "subject": event.subject,
        "key_id": event.key_id,
        "capability": event.capability,
        "model": event.model,
        "method": event.method,
        "request_id": event.request_id,
        "started_ms": event.started_ms,
        "ended_ms": event.ended_ms,
        "outcome": event.outcome,
        "reason": event.reason,
        "estimated": event.estimated,
        "engine": event.engine,
        "model_digest": event.model_digest,
        "queue_ms": event.queue_ms,
        "price_version": event.price_version,
        "reserved": _JSON.encode(event.reserved).decode(),
        **dict(zip(COUNTS, counts_of(event), strict=True)),
        "provider_cost_nano": event.provider_cost_nano,
    }
