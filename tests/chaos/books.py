"""Compares what callers saw with the ledger: the promises that no kill may break, in one place."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from atrium_gateway.usage.records import EXPIRED, ORPHANED, REFUNDED
from atrium_gateway.usage.tables import COUNTS, DIMENSIONS, SUMS
from tests.chaos.load import Answer, Record
from tests.kit.tenancy import Row

_HOUR_MS = 3_600_000
_LEFT = frozenset({ORPHANED, EXPIRED})
"""Outcomes of work whose end nobody told."""
_KEYS = [name for name in DIMENSIONS if name != "hour"]


def problems(record: Record, events: Sequence[Row], hours: Sequence[Row]) -> list[str]:
    """Says what is wrong with a tenant's books; empty if they hold.

    - Each answer has one event, with the usage that it told, priced and not estimated. A
      direct caller's may be estimated instead: its service answers although it can't settle
      for seconds.
    - No request has two events, other than reservations of it that nobody closed; those are
      estimated, and only those.
    - No event belongs to a request that nobody made.
    - The roll-ups are the sums of the events.
    """
    found: list[str] = []
    of_request: dict[str, list[Row]] = defaultdict(list)
    for event in events:
        of_request[event["request_id"]].append(event)
    for answer in record.answers:
        if trouble := _misbooked(answer, of_request[answer.request_id]):
            door = "a service" if answer.direct else "the gateway"
            found.append(f"{answer.request_id}, by {door}: {trouble}")
    asked = set(record.asked)
    for name, booked in of_request.items():
        closed = [event for event in booked if event["outcome"] not in _LEFT]
        if len(closed) > 1:
            found.append(f"{name}: {len(closed)} events: {[e['outcome'] for e in closed]}")
        if name not in asked:
            found.append(f"{name}: nobody asked that")
        found += [
            f"{name}: {event['outcome']}, but estimated is {event['estimated']}"
            for event in booked
            if bool(event["estimated"]) != (event["outcome"] in _LEFT)
        ]
    return found + _sums_apart(events, hours)


def _misbooked(answer: Answer, booked: Sequence[Row]) -> str | None:
    closed = [event for event in booked if event["outcome"] not in _LEFT]
    if not booked:
        return "answered, but it has no event"
    if not closed:
        if not answer.direct:
            return f"answered, but its event is {booked[0]['outcome']}"
        short = [unit for unit, n in answer.units.items() if max(e[unit] for e in booked) < n]
        return f"estimated below what it was: {short}" if short else None
    (event, *_) = closed
    if event["outcome"] != "completed":
        return f"answered, but its event is {event['outcome']}"
    apart = {unit: (n, event[unit]) for unit, n in answer.units.items() if event[unit] != n}
    return f"answered and booked apart: {apart}" if apart else None


def _sums_apart(events: Sequence[Row], hours: Sequence[Row]) -> list[str]:
    """Roll-ups that are not the sums of their events."""
    sums: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    for event in events:
        key = (*(event[name] or "" for name in _KEYS), event["started_ms"] // _HOUR_MS)
        own = {name: int(event[name]) for name in (*COUNTS, "provider_cost_nano")}
        own |= {"events": 1, "refunded": int(event["outcome"] == REFUNDED)}
        sums[key].update(own)
    booked = {
        (*(row[name] for name in _KEYS), row["hour"]): {name: int(row[name]) for name in SUMS}
        for row in hours
    }
    return [
        f"roll-up {key}: {booked.get(key)} instead of {dict(sums[key])}"
        for key in sums.keys() | booked.keys()
        if sums.get(key, {}) != booked.get(key)
    ]


def counted(events: Sequence[Row]) -> tuple[int, int]:
    """Requests and tokens that limits must have counted for these events."""
    return (
        sum(int(event["requests"]) for event in events),
        sum(int(event["input_tokens"] + event["output_tokens"]) for event in events),
    )
