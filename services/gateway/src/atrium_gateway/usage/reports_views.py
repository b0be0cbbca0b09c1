"""What reports are asked and what they tell, as plain values; `reports.py` makes them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Row

from atrium_gateway.usage.price import NANO
from atrium_gateway.usage.tables import COUNTS

NO_KEY = ""
"""Stands for the missing key of what a token's bearer used, in groups and filters."""


class Group(StrEnum):
    """By what totals are split; `HOUR` and `DAY` say the same as a `Bucket`."""

    HOUR = "hour"
    DAY = "day"
    CAPABILITY = "capability"
    MODEL = "model"
    KEY = "key"
    USER = "user"
    STATUS = "status"


DIMENSIONS: dict[Group, str] = {
    Group.CAPABILITY: "capability",
    Group.MODEL: "model",
    Group.KEY: "key_id",
    Group.USER: "subject",
    Group.STATUS: "outcome",
}
"""Column of each group that is none of time; in the order in which rows are sorted."""


class Bucket(StrEnum):
    """Length of the spans that totals are split into."""

    MINUTE = "1m"
    HOUR = "1h"
    DAY = "1d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which events count: of each attribute, any of its values; all if it has none.

    Attributes:
        capability: Values of `Capability`.
        model: Catalogue ids.
        key: Ids of API keys; `NO_KEY` for what came without one.
        user: Subjects.
        status: Outcomes.
    """

    capability: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    status: tuple[str, ...] = ()


EVERYTHING = Filters()
"""Filters that let all events pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over some requests; counts are 0 or more, cost is in the price book's currency."""

    requests: int = 0
    refunded: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    characters: int = 0
    input_audio: timedelta = timedelta()
    output_audio: timedelta = timedelta()
    images: int = 0
    millimegapixel_steps: int = 0
    pages: int = 0
    inference_time: timedelta = timedelta()
    cost: Decimal = Decimal()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup:
    """One group of a report.

    Attributes:
        start: Start of the minute, hour or day, if split by it, aware UTC.
        capability: Capability, if grouped by it.
        model: Model, if grouped by it.
        key: Id of the key or `NO_KEY`, if grouped by it.
        user: Subject, if grouped by it.
        status: Outcome, if grouped by it.
        totals: Sums over the group.
        place: Where it stands among the groups; names it to whoever asks for the next ones.
    """

    start: datetime | None = None
    capability: str | None = None
    model: str | None = None
    key: str | None = None
    user: str | None = None
    status: str | None = None
    totals: Totals
    place: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One line of the bill.

    Attributes:
        id: UUIDv7 of the reservation, or one made of it where several models worked.
        request_id: The same in all events of a request.
        outcome: ``completed``, ``cancelled``, ``failed``, ``refunded``, ``expired`` or
            ``orphaned``.
        estimated: The counts are an upper estimate.
        reserved: Counts that were held, zero ones left out.
        totals: What was charged.
    """

    id: str
    subject: str
    key_id: str | None
    capability: str
    model: str
    engine: str
    method: str
    request_id: str
    started_at: datetime
    ended_at: datetime
    outcome: str
    reason: str
    estimated: bool
    reserved: dict[str, int]
    price_version: int
    totals: Totals


def totals_of(row: Row[tuple[object, ...]], *, refunded: int) -> Totals:
    """The totals in a row that has all columns of `COUNTS`."""
    # PostgreSQL's SUM(bigint) is a Decimal.
    counts = {name: int(row._mapping[name]) for name in COUNTS}
    cost, audio_in = counts.pop("cost_nano"), counts.pop("input_audio_ms")
    audio_out, inference = counts.pop("output_audio_ms"), counts.pop("inference_ms")
    return Totals(
        refunded=refunded,
        input_audio=timedelta(milliseconds=audio_in),
        output_audio=timedelta(milliseconds=audio_out),
        inference_time=timedelta(milliseconds=inference),
        cost=Decimal(cost) / NANO,
        **counts,
    )
