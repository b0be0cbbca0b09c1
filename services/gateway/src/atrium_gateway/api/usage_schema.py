"""The parameters and the JSON of `/api/usage` and what lies under it. No logic."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from atrium_gateway.api.names import Label, Moment, TenantId

MAX_GROUPS = 10_000
"""Most groups of a page."""

BucketWidth = Literal["1m", "1h", "1d"]
GroupName = Literal["hour", "day", "capability", "model", "key", "user", "status"]
Format = Literal["json", "csv"]
GroupLimit = Annotated[int, Meta(ge=1, le=MAX_GROUPS)]
EventLimit = Annotated[int, Meta(ge=1, le=1000)]
Month = Annotated[str, Meta(pattern=r"^(19[7-9]\d|[2-8]\d{3})-(0[1-9]|1[0-2])$(?!\n)")]
Values = Annotated[list[Label], Meta(max_length=100)]


class UsageFilters(Struct, forbid_unknown_fields=True, kw_only=True):
    """What all reports can be narrowed to: of each, any of the values; repeat for several.

    An empty `key` stands for what came without one. `tenant` is for operators.
    """

    start_time: Moment | None = None
    end_time: Moment | None = None
    capability: Values = []
    model: Values = []
    key: Values = []
    user: Values = []
    status: Values = []
    format: Format = "json"
    tenant: TenantId | None = None


class UsageQuery(UsageFilters, kw_only=True):
    """Query of `GET /api/usage`; times are RFC 3339 with their zone."""

    bucket_width: BucketWidth | None = None
    group_by: list[GroupName] = []
    limit: GroupLimit | None = None
    page: str | None = None


class EventsQuery(UsageFilters, kw_only=True):
    """Query of `GET /api/usage/events`."""

    limit: EventLimit | None = None
    after: Label | None = None


class SummaryQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/usage/summary`."""

    tenant: TenantId | None = None


class StatementQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/usage/statement`; the running month if none is named."""

    month: Month | None = None
    format: Format = "json"
    tenant: TenantId | None = None


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
    """Sums over one group, with what the report is grouped by.

    `start_time` is that of its minute, hour or day; `key` is empty where none was used.
    """

    totals: Counts
    start_time: datetime | None = None
    capability: str | None = None
    model: str | None = None
    key: str | None = None
    user: str | None = None
    status: str | None = None


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/usage`: exact for what was admitted between the times.

    `totals` are those of the whole period, whatever page is shown; `next_page` goes into
    `page`. `time_zone` is the one whose days are told.
    """

    tenant: str
    start_time: datetime
    end_time: datetime
    time_zone: str
    totals: Counts
    groups: list[GroupView]
    next_page: str | None


class Charge(Struct, frozen=True, kw_only=True):
    """One line of a price: so much of a unit at its price.

    `unit` is the name in the price book, e.g. ``million_input_tokens``; `count` is what was
    counted for it, in the unit of the same name in `Counts`.
    """

    unit: str
    count: float
    unit_price: str
    amount: str


class EventObject(Struct, frozen=True, kw_only=True):
    """One line of the bill; `estimated` if the counts are an upper estimate.

    `reserved` are the counts that were held while it ran, `charges` how its cost comes
    about, `explanation` tells how it ended and why that is charged.
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
    price_version: int
    totals: Counts
    reserved: dict[str, float]
    unit_prices: dict[str, str]
    charges: list[Charge]
    explanation: str


class EventsAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/usage/events`, newest first; `next` goes into `after`."""

    tenant: str
    events: list[EventObject]
    next: str | None


Amount = int | float | str
"""A number of a unit; of `cost` a decimal number in text."""


class LimitView(Struct, frozen=True, kw_only=True):
    """One limit and what is left of it, as far as work has ended.

    `name` is that of refusals and headers. `used`, `remaining` and the rest are null where
    they make no sense: `used` for what runs at once, `reset_time` where nothing begins anew,
    `exhausted_at` where the limit holds until then at the present rate.
    """

    name: str
    scope: str
    capability: str
    model: str | None
    unit: str
    window: str
    limit: Amount
    used: Amount | None
    remaining: Amount | None
    reset_time: datetime | None
    forecast: Amount | None
    exhausted_at: datetime | None


class PeriodView(Struct, frozen=True, kw_only=True):
    """The running month: what was consumed, and what will be if it goes on so."""

    start_time: datetime
    end_time: datetime
    totals: Counts
    forecast: Counts


class SummaryAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/usage/summary`."""

    tenant: str
    time_zone: str
    time: datetime
    period: PeriodView
    limits: list[LimitView]


class StatementLine(Struct, frozen=True, kw_only=True):
    """One model while its prices stayed the same.

    `rounding` is what `amount`, the sum over single requests, differs from the sum of
    `charges`, each computed over all of them.
    """

    model: str
    start_time: datetime
    end_time: datetime
    totals: Counts
    unit_prices: dict[str, str]
    charges: list[Charge]
    rounding: str
    amount: str


class StatementAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/usage/statement`; not `complete` before the month is over."""

    tenant: str
    month: str
    time_zone: str
    start_time: datetime
    end_time: datetime
    complete: bool
    lines: list[StatementLine]
    amount: str
