"""Turns a reservation into the priced events that close it; admission and recovery use it."""

from collections.abc import Sequence

from msgspec.structs import replace

from atrium_common.domain import Usage
from atrium_gateway.quota.limits import milliseconds
from atrium_gateway.usage.price import PriceSource
from atrium_gateway.usage.records import OpenRecord, Units, UsageEvent, units_of
from atrium_gateway.usage.split import share_id

_NO_USAGE = Usage()


def close_record(
    record: OpenRecord,
    units: Units,
    outcome: str,
    *,
    ended_ms: int,
    prices: PriceSource,
    estimated: bool = False,
    reason: str = "",
    requests: int = 1,
    usage: Usage = _NO_USAGE,
) -> UsageEvent:
    """The event that closes `record` with `units`, priced by the model that did the work.

    Args:
        record: The reservation.
        units: What is charged.
        outcome: How it ended.
        ended_ms: When, Unix milliseconds.
        prices: Tells what was in force when the work was admitted.
        estimated: Whether `units` are an upper estimate.
        reason: Why the gateway closed or refunded it.
        requests: 1 if the request is charged, else 0.
        usage: What the engine reported, for its name and times.
    """
    model = usage.model or record.model
    book = prices.at(record.started_ms)
    cost, version = book.cost(model, units, requests=requests)
    return UsageEvent(
        record.id,
        record.tenant,
        record.subject,
        record.capability,
        model,
        record.method,
        record.request_id,
        record.started_ms,
        ended_ms,
        outcome,
        units,
        record.reserved,
        requests,
        cost,
        version,
        estimated,
        reason,
        record.key_id,
        usage.engine,
        usage.model_digest,
        milliseconds(usage.queue_time) if usage.queue_time else 0,
        milliseconds(usage.inference_time) if usage.inference_time else 0,
        book.provider_cost(model, units, requests=requests),
    )


def settle_record(
    record: OpenRecord,
    shares: Sequence[Usage],
    outcome: str,
    *,
    ended_ms: int,
    prices: PriceSource,
) -> Sequence[UsageEvent]:
    """The events that settle `record`: one per model, each priced by its own prices.

    The request counts in the first, which has the reservation's id; the others have ids
    made of it.

    Args:
        record: The reservation.
        shares: What each model consumed, at least one; see `split.shares`.
        outcome: How it ended.
        ended_ms: When, Unix milliseconds.
        prices: Tells what was in force when the work was admitted.
    """
    events = [
        close_record(
            record,
            units_of(share),
            outcome,
            ended_ms=ended_ms,
            prices=prices,
            estimated=share.estimated,
            requests=1 if number == 0 else 0,
            usage=share,
        )
        for number, share in enumerate(shares)
    ]
    held_elsewhere = Units()
    return [
        events[0],
        *(
            replace(event, id=share_id(record.id, event.model), reserved=held_elsewhere)
            for event in events[1:]
        ),
    ]
