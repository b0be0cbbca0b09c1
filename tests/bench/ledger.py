"""The ledger in a database: how fast the spool drains into it, and how fast a month is told.

    python -m tests.bench.ledger [--rows 10000000] [--database sqlite|postgresql]

The rows are the events of one month (`ledger_rows.py`); they are generated, not measured. Ten
million take minutes and some 5 GB of disk, so `make bench` leaves this out.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from zoneinfo import ZoneInfo

import psutil
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
from atrium_gateway.usage.writer import LedgerWriter
from tests.bench.ledger_rows import START, TABLES, fill_postgres, fill_sqlite
from tests.bench.report import console, cpu_seconds, table

ROWS = 10_000_000
DRAINED = 50_000
ROUNDS = 7
PAGE = 10_000
"""Most groups of a page, as `/api/usage` has it."""
ABROAD = "America/New_York"
VIEWS: dict[str, tuple[Group, ...]] = {
    "total": (),
    "capability": (Group.CAPABILITY,),
    "model": (Group.MODEL,),
    "key": (Group.KEY,),
    "user": (Group.USER,),
    "status": (Group.STATUS,),
    "day": (Group.DAY,),
    "day, model": (Group.DAY, Group.MODEL),
    "hour": (Group.HOUR,),
    "hour, model": (Group.HOUR, Group.MODEL),
}


async def month(engine: AsyncEngine, used: Callable[[], float]) -> None:
    """Times each view of the largest tenant's month, and of a usual one's.

    Args:
        engine: The database, filled.
        used: Processor seconds of this process and the database so far.
    """

    async def nothing() -> None:
        """There is no spool."""

    reports = UsageReports(engine, flush=nothing)
    shown: list[Sequence[str]] = []
    for tenant in ("tenant0", "tenant7"):
        for kept, zone in (("UTC", "UTC"), (ABROAD, ABROAD), (ABROAD, "Europe/Berlin")):
            began, before = time.perf_counter(), used()
            await rezone(engine, tenant, kept)
            if zone == kept != "UTC":
                seconds, worked_for = time.perf_counter() - began, used() - before
                console.print(
                    f"{tenant} moved to {kept} in {seconds:.1f} s, {worked_for:.1f} s of a core"
                )
            for name, (start, end) in periods(zone).items():
                for view, by in VIEWS.items():
                    if zone != kept and Group.DAY not in by:
                        continue  # told from the same sums
                    took, worked = [], []
                    for _ in range(ROUNDS):
                        began, before = time.perf_counter(), used()
                        await reports.groups(
                            tenant, start=start, end=end, by=by, zone=ZoneInfo(zone), limit=PAGE
                        )
                        took.append((time.perf_counter() - began) * 1000)
                        worked.append((used() - before) * 1000)
                    label = f"{tenant}, {zone}, kept in {kept}, {name}, by {view}"
                    figures = (median(took), max(took), median(worked), min(worked))
                    shown.append((label, *(f"{figure:,.0f}" for figure in figures)))
    columns = ("query", "median", "max", "processor, median", "least")
    table("A month of usage, ms", columns, shown)


def usage_of(server: PostgresServer | None) -> Callable[[], float]:
    """Reads processor seconds of this process, and of the server's and its children.

    What a query costs where others have the processor, too; ticks are of 10 ms.
    """
    processes = [psutil.Process()]
    if server is not None:
        pid = (server.folder / "data" / "postmaster.pid").read_text().splitlines()[0]
        processes.append(psutil.Process(int(pid)))

    def used() -> float:
        children = [child for each in processes[1:] for child in each.children()]
        return sum(cpu_seconds(each) for each in (*processes, *children))

    return used


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


async def measure(folder: Path, rows: int, database: str) -> None:
    """Runs everything over one kind of database and prints it."""
    with ExitStack() as stack:
        server = None
        file = folder / "ledger.db"
        url = f"sqlite+aiosqlite:///{file}"
        if database == "postgresql":
            server = stack.enter_context(postgres_server(fsync=True))
            url = server.new_database("ledger")
        engine = open_engine(url)
        await upgrade(engine)
        rate = await drain(engine, folder / "spool")
        title = f"Spool into the database, {DRAINED:,} events"
        table(title, ("database", "rows/s"), [(database, f"{rate:,.0f}")])
        began = time.perf_counter()
        if server is not None:
            await fill_postgres(server, "ledger", rows)
        else:
            await asyncio.to_thread(fill_sqlite, file, rows)
        console.print(f"{rows:,} events generated in {time.perf_counter() - began:,.0f} s")
        async with engine.connect() as connection:
            for each in TABLES:
                console.print(each.name, await connection.scalar(select(func.count(each.c.tenant))))
        await month(engine, usage_of(server))
        await engine.dispose()


def main() -> None:
    """Reads the options and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ledger", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atrium-ledger-") as folder:
        asyncio.run(measure(Path(folder), chosen.rows, chosen.database))


if __name__ == "__main__":
    main()
