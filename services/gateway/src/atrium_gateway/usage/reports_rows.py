"""Rows of the ledger's tables as what reports tell; `reports.py` reads them."""

import msgspec
from sqlalchemy import Row

from atrium_gateway.usage.records import REFUNDED
from atrium_gateway.usage.reports_calendar import moment_of
from atrium_gateway.usage.reports_query import BUCKET, Report
from atrium_gateway.usage.reports_views import (
    DIMENSIONS,
    EventView,
    Group,
    UsageGroup,
    totals_of,
)


def group_of(row: Row[tuple[object, ...]], report: Report) -> UsageGroup:
    """The group in a row of a report."""
    place: tuple[int | str, ...] = tuple(row._mapping[name] for name in report.columns)
    named = dict(zip(report.columns, place, strict=True))
    start = named.pop(BUCKET, None)
    shown = {group.value: str(named[name]) for group, name in DIMENSIONS.items() if name in named}
    return UsageGroup(
        start=None if start is None else moment_of(int(start)),
        capability=shown.get(Group.CAPABILITY),
        model=shown.get(Group.MODEL),
        key=shown.get(Group.KEY),
        user=shown.get(Group.USER),
        status=shown.get(Group.STATUS),
        totals=totals_of(row, refunded=int(row.refunded)),
        place=place,
    )


def event_of(row: Row[tuple[object, ...]]) -> EventView:
    """The event in a row of `usage_events`."""
    return EventView(
        id=row.id,
        subject=row.subject,
        key_id=row.key_id,
        capability=row.capability,
        model=row.model,
        engine=row.engine,
        method=row.method,
        request_id=row.request_id,
        started_at=moment_of(row.started_ms),
        ended_at=moment_of(row.ended_ms),
        outcome=row.outcome,
        reason=row.reason,
        estimated=row.estimated,
        reserved=msgspec.json.decode(row.reserved, type=dict[str, int]),
        price_version=row.price_version,
        totals=totals_of(row, refunded=int(row.outcome == REFUNDED)),
    )
