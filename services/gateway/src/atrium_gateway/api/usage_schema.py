"""The parameters and the JSON of `/api/usage`. No logic."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

GroupName = Literal["hour", "day", "capability", "model"]
EventLimit = Annotated[int, Meta(ge=1, le=1000)]
Moment = Annotated[datetime, Meta(tz=True)]


class UsageQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/usage`; times are RFC 3339 with their zone."""

    start_time: Moment | None = None
    end_time: Moment | None = None
    group_by: list[GroupName] = []
    tenant: str | None = None


class EventsQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/usage/events`."""

    start_time: Moment | None = None
    end_time: Moment | None = None
    limit: EventLimit = 100
    after: str | None = None
    tenant: str | None = None


class Counts(Struct, frozen=True, kw_only=True):
    """What was consumed; audio in seconds, cost as a decimal number in text.

    `inference_time` is the time of the devices, in seconds.
    """

    requests: int
    refunded: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    characters: int
    input_audio: float
    output_audio: float
    images: int
    megapixel_steps: float
    pages: int
    inference_time: float
    cost: str


class GroupView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sums over one group, with what the report is grouped by."""

    totals: Counts
    start_time: datetime | None = None
    capability: str | None = None
    model: str | None = None


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/usage`: whole UTC hours between the times."""

    tenant: str
    start_time: datetime
    end_time: datetime
    totals: Counts
    groups: list[GroupView]


class EventObject(Struct, frozen=True, kw_only=True):
    """One line of the bill; `estimated` if the counts are an upper estimate."""

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
    price_version: int
    totals: Counts


class EventsAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/usage/events`, newest first; `next` goes into `after`."""

    tenant: str
    events: list[EventObject]
    next: str | None
