"""The ledger in PostgreSQL: how fast the spool drains into it, and how fast a month is told.

    python -m tests.bench.ledger [ROWS]

ROWS (10,000,000 if not given) are the events of one month and 40 tenants, of which the
largest has a quarter; they are generated, not measured. Takes minutes and some 5 GB of disk,
so `make bench` leaves it out.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from zoneinfo import ZoneInfo

from psycopg import AsyncConnection
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.testing.servers import PostgresServer, postgres_server
from atrium_gateway.usage.framing import frame
from atrium_gateway.usage.records import Units, UsageEvent
from atrium_gateway.usage.reports import Group, UsageReports
from atrium_gateway.usage.reports_calendar import month_bounds
from atrium_gateway.usage.rezone import rezone
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.tables import (
    COUNTS,
    DAILY_DIMENSIONS,
    DIMENSIONS,
    MONTHLY_DIMENSIONS,
    SUMS,
    usage_daily,
    usage_events,
    usage_hourly,
    usage_monthly,
)
from atrium_gateway.usage.writer import LedgerWriter
from tests.bench.report import console, table

ROWS = 10_000_000
DRAINED = 50_000
START = datetime(2026, 5, 1, tzinfo=UTC)
MONTH = timedelta(days=31)
TENANTS = 40
ROUNDS = 7
ABROAD = "America/New_York"
BLOCK = 20_000
TABLES = (usage_events, usage_hourly, usage_daily, usage_monthly)
COLUMNS = [column.name for column in usage_events.columns]
VIEWS: dict[str, tuple[Group, ...]] = {
    "total": (),
    "capability": (Group.CAPABILITY,),
    "model": (Group.MODEL,),
    "key": (Group.KEY,),
    "user": (Group.USER,),
    "status": (Group.STATUS,),
    "day": (Group.DAY,),
    "day, model": (Group.DAY, Group.MODEL),
}


def people(tenant: int) -> int:
    """Users of a tenant; each has two models of its own and one key."""
    return 200 if tenant == 0 else 20


def lines(rows: int, dice: random.Random) -> Iterator[bytes]:
    """Blocks of rows in COPY's text format, in the order of `COLUMNS`."""
    constant = {name: "0" for name in COUNTS} | {
        "method": "POST /v1/chat/completions",
        "reason": "",
        "estimated": "f",
        "engine": "transformers",
        "model_digest": "0" * 64,
        "queue_ms": "3",
        "price_version": "1",
        "reserved": '{"input_tokens":900,"output_tokens":512}',
        "requests": "1",
        "input_tokens": "612",
        "output_tokens": "187",
        "inference_ms": "850",
        "cost_nano": "204000",
        "provider_cost_nano": "90000",
    }
    start_ms, step = int(START.timestamp() * 1000), MONTH.total_seconds() * 1000 / rows
    # All that repeats is put together once for each of its few combinations.
    middles: dict[tuple[int, int, int, str], str] = {}
    tail = "\t".join(constant[name] for name in COLUMNS[COLUMNS.index("outcome") + 1 :])
    block: list[str] = []
    for number in range(rows):
        chance = dice.random()
        tenant = 0 if chance < 0.25 else 1 + int(chance * 1e6) % (TENANTS - 1)
        person = int(dice.random() * people(tenant))
        model = (person + (chance * 1e4 % 1 < 0.3)) % 8
        outcome = "completed" if chance * 1e5 % 1 < 0.98 else "cancelled"
        middle = middles.get((tenant, person, model, outcome))
        if middle is None:
            capability = ("chat", "embedding", "transcription")[model % 3]
            middle = middles[tenant, person, model, outcome] = (
                f"tenant{tenant}\tuser{person}\tkey{person % 10}\t{capability}\tmodel{model}\t"
                f"{constant['method']}"
            )
        started = start_ms + int(number * step)
        block.append(
            f"{started:012x}-{number:023x}\t{middle}\tr{number}\t{started}\t{started + 900}\t"
            f"{outcome}\t{tail}"
        )
        if len(block) == BLOCK:
            yield ("\n".join(block) + "\n").encode()
            block = []
    if block:
        yield ("\n".join(block) + "\n").encode()


async def load(server: PostgresServer, database: str, rows: int) -> None:
    """Fills both tables; the index is built afterwards, as a restored backup would."""
    sums = ", ".join(f"SUM({name})" for name in (*COUNTS, "provider_cost_nano"))
    key = "tenant, started_ms / 3600000, capability, model, key_id, subject, outcome"
    refunded = "COUNT(*) FILTER (WHERE outcome = 'refunded')"
    index = "ix_usage_events_tenant_started_ms_id"
    async with await AsyncConnection.connect(server.dsn(database), autocommit=True) as db:
        await db.execute("SET work_mem = '1GB'")
        await db.execute("SET maintenance_work_mem = '1GB'")
        await db.execute(f"DROP INDEX {index}")
        into = f"COPY usage_events ({', '.join(COLUMNS)}) FROM STDIN"
        async with db.cursor() as cursor, cursor.copy(into) as copy:
            for block in lines(rows, random.Random(6)):  # noqa: S311 - generated data
                await copy.write(block)
        await db.execute(f"CREATE INDEX {index} ON usage_events (tenant, started_ms, id)")
        named = ", ".join((*DIMENSIONS, *SUMS))
        await db.execute(
            f"INSERT INTO usage_hourly ({named}) SELECT {key}, {sums}, COUNT(*), {refunded} "  # noqa: S608
            f"FROM usage_events WHERE tenant <> 'drained' GROUP BY {key}"
        )
        day = ", ".join(("tenant", "hour / 24 * 86400000", *DIMENSIONS[2:]))
        sums = ", ".join(f"SUM({name})" for name in SUMS)
        named = ", ".join((*DAILY_DIMENSIONS, *SUMS))
        await db.execute(
            f"INSERT INTO usage_daily ({named}) SELECT {day}, {sums} FROM usage_hourly "  # noqa: S608
            f"WHERE tenant <> 'drained' GROUP BY {day}"
        )
        month = ", ".join(("tenant", str(int(START.timestamp()) * 1000), *DIMENSIONS[2:]))
        named = ", ".join((*MONTHLY_DIMENSIONS, *SUMS))
        await db.execute(
            f"INSERT INTO usage_monthly ({named}) SELECT {month}, {sums} FROM usage_daily "  # noqa: S608
            f"WHERE tenant <> 'drained' GROUP BY tenant, {', '.join(DIMENSIONS[2:])}"
        )
        for filled in TABLES:
            await db.execute(f"VACUUM ANALYZE {filled.name}")


async def month(engine: AsyncEngine) -> None:
    """Times each view of the largest tenant's month, and of a usual one's."""

    async def nothing() -> None:
        """There is no spool."""

    reports = UsageReports(engine, flush=nothing)
    shown: list[Sequence[str]] = []
    for tenant in ("tenant0", "tenant7"):
        for kept, zone in (("UTC", "UTC"), (ABROAD, ABROAD), (ABROAD, "Europe/Berlin")):
            began = time.perf_counter()
            await rezone(engine, tenant, kept)
            if zone == kept != "UTC":
                console.print(f"{tenant} moved to {kept} in {time.perf_counter() - began:.1f} s")
            for name, (start, end) in periods(zone).items():
                for view, by in VIEWS.items():
                    if zone != kept and Group.DAY not in by:
                        continue  # told from the same sums
                    took = []
                    for _ in range(ROUNDS):
                        began = time.perf_counter()
                        await reports.groups(
                            tenant, start=start, end=end, by=by, zone=ZoneInfo(zone)
                        )
                        took.append((time.perf_counter() - began) * 1000)
                    label = f"{tenant}, {zone}, kept in {kept}, {name}, by {view}"
                    shown.append((label, f"{median(took):,.0f}", f"{max(took):,.0f}"))
    table("A month of usage, ms", ("query", "median", "max"), shown)


def periods(zone: str) -> dict[str, tuple[datetime, datetime]]:
    """The month of a zone, and one that begins and ends within hours far from midnight."""
    start, end = month_bounds(START.year, START.month, ZoneInfo(zone))
    return {
        "month": (start, end),
        "month less 9:17 and 13:23 hours": (
            start + timedelta(hours=9, minutes=17),
            end - timedelta(hours=13, minutes=23),
        ),
    }


def spooled(folder: Path) -> None:
    """A spool of `DRAINED` events, as a gateway leaves it when the database is away."""
    folder.mkdir()
    dice = random.Random(7)  # noqa: S311 - generated data
    start_ms = int(START.timestamp() * 1000)
    with (folder / "0000000001.spool").open("wb") as file:
        for number in range(DRAINED):
            started = start_ms + number * 20
            units, person = Units(612, 187), int(dice.random() * 200)
            file.write(
                frame(
                    UsageEvent(
                        f"{started:012x}-d{number:022d}",
                        "drained",
                        f"user{person}",
                        "chat",
                        f"model{person % 8}",
                        "POST /v1/chat/completions",
                        f"r{number}",
                        started,
                        started + 900,
                        "completed",
                        units,
                        units,
                        cost_nano=204_000,
                        price_version=1,
                        key_id=f"key{person % 10}",
                    )
                )
            )


async def drain(engine: AsyncEngine, folder: Path) -> float:
    """Rows per second from the spool into the database, the same process doing both ends."""
    spooled(folder)
    spool = Spool(folder, segment_bytes=1 << 22, carry=list)
    began = time.perf_counter()
    await LedgerWriter(engine, spool, interval=1).drain()
    return DRAINED / (time.perf_counter() - began)


async def measure(folder: Path, rows: int) -> None:
    """Runs everything and prints it."""
    rates: list[Sequence[str]] = []
    with postgres_server(fsync=True) as server:
        urls = {
            "SQLite": f"sqlite+aiosqlite:///{folder}/ledger.db",
            "PostgreSQL": server.new_database("ledger"),
        }
        for name, url in urls.items():
            engine = open_engine(url)
            await upgrade(engine)
            rates.append((name, f"{await drain(engine, folder / name):,.0f}"))
            await engine.dispose()
        table(f"Spool into the database, {DRAINED:,} events", ("database", "rows/s"), rates)
        began = time.perf_counter()
        await load(server, "ledger", rows)
        console.print(f"{rows:,} events generated in {time.perf_counter() - began:,.0f} s")
        engine = open_engine(urls["PostgreSQL"])
        async with engine.connect() as connection:
            for each in TABLES:
                size = func.pg_size_pretty(func.pg_total_relation_size(each.name))
                count = await connection.execute(select(func.count(), size).select_from(each))
                console.print(each.name, *count.one())
        await month(engine)
        await engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="atrium-ledger-") as temporary:
        asyncio.run(measure(Path(temporary), int(sys.argv[1]) if sys.argv[1:] else ROWS))
