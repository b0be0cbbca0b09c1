"""A tenant's events as lines of a file, page by page; `atrium usage export` writes them.

What leaves is all that the ledger knows of an event, in units that need no explanation:
times in ISO 8601, money as exact decimals.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

import msgspec
from sqlalchemy import Row, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.usage.price import NANO
from atrium_gateway.usage.reports_csv import csv_lines
from atrium_gateway.usage.tables import COUNTS, usage_events

_PAGE = 2000

Field = str | int | bool | None | Mapping[str, int]
Line = dict[str, Field]

_TEXTS = ("id", "request_id", "tenant", "subject", "key_id", "capability", "model", "engine")
_TEXTS_AFTER_TIMES = ("model_digest", "method", "outcome", "reason")
_UNITS = tuple(name for name in COUNTS if name != "cost_nano")


class Format(StrEnum):
    """How a line is written."""

    JSONL = "jsonl"
    CSV = "csv"


async def export_events(
    engine: AsyncEngine,
    tenant: str,
    *,
    start: datetime,
    end: datetime,
    with_provider_cost: bool = False,
    page: int = _PAGE,
) -> AsyncIterator[Line]:
    """Yields the events admitted in ``[start, end)``, oldest first.

    Each page is a query of its own: an export of years holds no transaction open, and
    none of its memory grows.

    Args:
        engine: The database.
        tenant: Whose.
        start: Aware time.
        end: Aware time.
        with_provider_cost: Whether what the work cost the operator is told, too.
        page: Events per query.
    """
    table = usage_events.c
    begin, after = int(start.timestamp() * 1000), ""
    while True:
        query = (
            select(usage_events)
            .where(
                table.tenant == tenant,
                table.started_ms >= begin,
                table.started_ms < int(end.timestamp() * 1000),
                or_(table.started_ms > begin, and_(table.started_ms == begin, table.id > after)),
            )
            .order_by(table.started_ms, table.id)
            .limit(page)
        )
        async with engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        for row in rows:
            yield _line(row, with_provider_cost=with_provider_cost)
        if len(rows) < page:
            return
        begin, after = rows[-1].started_ms, rows[-1].id


async def write_events(
    lines: AsyncIterator[Line], write: Callable[[str], object], *, form: Format
) -> int:
    """Writes each line as it comes.

    Args:
        lines: From `export_events`.
        write: Takes text; what it returns is ignored.
        form: JSON Lines, or CSV with a header (none where there are no events).

    Returns:
        How many events were written.
    """
    count = 0
    async for line in lines:
        if form is Format.JSONL:
            write(msgspec.json.encode(line).decode() + "\n")
        else:
            write(("" if count else _row(list(line))) + _row([_cell(x) for x in line.values()]))
        count += 1
    return count


def _line(row: Row[tuple[object, ...]], *, with_provider_cost: bool) -> Line:
    held = row._mapping
    provider: Line = {"provider_cost": _money(row.provider_cost_nano)} if with_provider_cost else {}
    return {
        **{name: held[name] for name in _TEXTS},
        "started_at": _iso(row.started_ms),
        "ended_at": _iso(row.ended_ms),
        **{name: held[name] for name in _TEXTS_AFTER_TIMES},
        "estimated": bool(row.estimated),
        **{name: int(held[name]) for name in _UNITS},
        "queue_ms": int(row.queue_ms),
        "reserved": msgspec.json.decode(row.reserved, type=dict[str, int]),
        "price_version": int(row.price_version),
        "cost": _money(row.cost_nano),
        **provider,
    }


def _iso(time_ms: int) -> str:
    time = datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)
    return time.isoformat(timespec="milliseconds")


def _money(nano: int) -> str:
    return f"{Decimal(nano) / NANO:f}"


def _cell(value: Field) -> str | int:
    """As CSV has it: nothing for null, JSON for what has parts and for yes and no."""
    if value is None:
        return ""
    if isinstance(value, bool | Mapping):
        return msgspec.json.encode(value).decode()
    return value


def _row(cells: Sequence[str | int]) -> str:
    return csv_lines([cells]).decode()
