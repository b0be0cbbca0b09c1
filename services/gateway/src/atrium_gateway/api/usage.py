"""`GET /api/usage`: what a tenant consumed, in all and by groups. A tenant sees itself."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

import msgspec
from msgspec.structs import astuple, fields

from atrium_common.errors import InvalidArgument
from atrium_gateway.api.decode import convert
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.usage_query import (
    Place,
    counts,
    filters_of,
    page_name,
    page_of,
    parameters,
    period,
    whose,
)
from atrium_gateway.api.usage_schema import (
    MAX_GROUPS,
    Counts,
    GroupView,
    UsageAnswer,
    UsageQuery,
)
from atrium_gateway.usage.reports import Bucket, Filters, Group, UsageGroup
from atrium_gateway.usage.reports_csv import CSV, Cell, csv_lines

_ENCODER = msgspec.json.Encoder()
_LISTS = frozenset({"group_by"})
_WIDTHS = {"hour": Bucket.HOUR, "day": Bucket.DAY}
COUNT_NAMES = tuple(field.name for field in fields(Counts))
"""Names of the sums, in the order of the columns of an export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A report as it was asked for.

    Attributes:
        name: Tells it from other reports, so that pages don't get mixed.
        after: Place of the group to go on after; empty for the first page.
    """

    name: str
    tenant: str
    start: datetime
    end: datetime
    by: Sequence[Group]
    bucket: Bucket | None
    zone: tzinfo
    only: Filters
    after: Place

    @property
    def split(self) -> bool:
        """Whether there are groups."""
        return bool(self.by) or self.bucket is not None


async def show_usage(exchange: Exchange) -> None:
    """Sums what was consumed, in all and by the groups asked for."""
    principal = await exchange.authenticate()
    query = convert(parameters(exchange, lists=_LISTS), UsageQuery)
    asked = await _asked(exchange, query, whose(principal, query.tenant))
    if query.format == "csv":
        await _export(exchange, asked, query.limit)
        return
    reports = exchange.gateway.reports
    totals = await reports.totals(asked.tenant, start=asked.start, end=asked.end, only=asked.only)
    groups, following = await _page(exchange, asked, query.limit or MAX_GROUPS)
    answer = UsageAnswer(
        tenant=asked.tenant,
        start_time=asked.start,
        end_time=asked.end,
        time_zone=str(asked.zone),
        totals=counts(totals),
        groups=[_view(group) for group in groups],
        next_page=following,
    )
    await exchange.reply(_ENCODER.encode(answer))


async def _asked(exchange: Exchange, query: UsageQuery, tenant: str) -> _Asked:
    by = [Group(name) for name in query.group_by]
    bucket = _bucket(query)
    only = filters_of(query)
    told = (tenant, bucket, sorted(set(by)), only, query.start_time, query.end_time)
    name = hashlib.sha256(_ENCODER.encode(told)).hexdigest()[:16]
    if query.page is None:
        start, end = period(exchange, query, bucket=bucket)
        after: Place = ()
    else:
        start, end, after = page_of(query.page, name)
    return _Asked(
        name=name,
        tenant=tenant,
        start=start,
        end=end,
        by=by,
        bucket=bucket,
        zone=await exchange.gateway.standing.zone(tenant),
        only=only,
        after=after,
    )


def _bucket(query: UsageQuery) -> Bucket | None:
    """The one span of time that a report is split by, however it is asked for.

    Raises:
        InvalidArgument: Two are.
    """
    widths = {_WIDTHS[name] for name in query.group_by if name in _WIDTHS}
    if query.bucket_width is not None:
        widths.add(Bucket(query.bucket_width))
    if len(widths) > 1:
        raise InvalidArgument("A report has buckets of one width.", field="bucket_width")
    return widths.pop() if widths else None


async def _page(
    exchange: Exchange, asked: _Asked, limit: int
) -> tuple[Sequence[UsageGroup], str | None]:
    """One page of groups, and the name of the next one if there is one."""
    if not asked.split:
        return (), None
    found = await exchange.gateway.reports.groups(
        asked.tenant,
        start=asked.start,
        end=asked.end,
        by=asked.by,
        bucket=asked.bucket,
        zone=asked.zone,
        only=asked.only,
        limit=limit + 1,
        after=asked.after,
    )
    if len(found) <= limit:
        return found, None
    shown = found[:limit]
    return shown, page_name(asked.name, asked.start, asked.end, shown[-1].place)


async def _export(exchange: Exchange, asked: _Asked, limit: int | None) -> None:
    """Sends the groups as CSV: one page if a limit is given, else all of them."""
    columns = [name for name in _NAMES if _is_shown(name, asked)]
    if limit is not None:
        groups, following = await _page(exchange, asked, limit)
        body = csv_lines([[*columns, *COUNT_NAMES], *_rows(groups, columns)])
        headers = {"x-atrium-next-page": following} if following else {}
        await exchange.reply(body, content_type=CSV, headers=headers)
        return
    pages = _pages(exchange, asked)
    first = await anext(pages)  # what can't be told is refused before the answer begins
    await exchange.start(content_type=CSV, headers={})
    await exchange.write(csv_lines([[*columns, *COUNT_NAMES], *_rows(first, columns)]))
    async for groups in pages:
        await exchange.write(csv_lines(_rows(groups, columns)))
    await exchange.write(b"", last=True)


async def _pages(exchange: Exchange, asked: _Asked) -> AsyncIterator[Sequence[UsageGroup]]:
    reports, span = exchange.gateway.reports, {"start": asked.start, "end": asked.end}
    if not asked.split:
        yield [UsageGroup(totals=await reports.totals(asked.tenant, **span, only=asked.only))]
        return
    pages = reports.all_groups(
        asked.tenant,
        **span,
        by=asked.by,
        bucket=asked.bucket,
        zone=asked.zone,
        only=asked.only,
        after=asked.after,
    )
    async for page in pages:
        yield page


_NAMES = tuple(field.name for field in fields(GroupView) if field.name != "totals")


def _is_shown(name: str, asked: _Asked) -> bool:
    return asked.bucket is not None if name == "start_time" else name in asked.by


def _rows(groups: Sequence[UsageGroup], columns: Sequence[str]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for group in groups:
        start = None if group.start is None else group.start.isoformat()
        named: dict[str, Cell] = {
            "start_time": start,
            "capability": group.capability,
            "model": group.model,
            "key": group.key,
            "user": group.user,
            "status": group.status,
        }
        rows.append([*(named[name] for name in columns), *astuple(counts(group.totals))])
    return rows


def _view(group: UsageGroup) -> GroupView:
    return GroupView(
        totals=counts(group.totals),
        start_time=group.start,
        capability=group.capability,
        model=group.model,
        key=group.key,
        user=group.user,
        status=group.status,
    )
