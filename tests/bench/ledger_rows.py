"""A month of generated events and their roll-ups, for `ledger.py` to measure over.

40 tenants, of which the largest has a quarter. Rows go in as a restored backup's would: sums are
made by the database, and the index of events is built at the end.
"""

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg import AsyncConnection

from atrium_gateway.testing.servers import PostgresServer
from atrium_gateway.usage.tables import (
    COUNTS,
    DAILY_DIMENSIONS,
    DIMENSIONS,
    MONTHLY_DIMENSIONS,
    NAMELESS,
    SUMS,
    usage_daily,
    usage_events,
    usage_hourly,
    usage_monthly,
    usage_nameless,
)

START = datetime(2026, 5, 1, tzinfo=UTC)
MONTH = timedelta(days=31)
TENANTS = 40
BLOCK = 20_000
TABLES = (usage_events, usage_hourly, usage_nameless, usage_daily, usage_monthly)
COLUMNS = [column.name for column in usage_events.columns]
INDEX = "ix_usage_events_tenant_started_ms_id"
_START_MS = int(START.timestamp() * 1000)


def people(tenant: int) -> int:
    """Users of a tenant; each has two models of its own and one key."""
    return 200 if tenant == 0 else 20


def blocks(rows: int, dice: random.Random) -> Iterator[list[str]]:
    """Blocks of rows in COPY's text format, in the order of `COLUMNS`."""
    constant = {name: "0" for name in COUNTS} | {
        "method": "POST /v1/chat/completions",
        "reason": "",
        "estimated": "0",
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
    step = MONTH.total_seconds() * 1000 / rows
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
        started = _START_MS + int(number * step)
        block.append(
            f"{started:012x}-{number:023x}\t{middle}\tr{number}\t{started}\t{started + 900}\t"
            f"{outcome}\t{tail}"
        )
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def roll_ups() -> Iterator[str]:
    """Statements that sum the events by hours, and the hours by days and months of UTC."""
    events = [f"SUM({name})" for name in (*COUNTS, "provider_cost_nano")]
    events += ["COUNT(*)", "COUNT(*) FILTER (WHERE outcome = 'refunded')"]
    hour = ("tenant", "started_ms / 3600000", *DIMENSIONS[2:])
    yield _filled("usage_hourly", DIMENSIONS, hour, events, source="usage_events")
    sums = [f"SUM({name})" for name in SUMS]
    yield _filled("usage_nameless", NAMELESS, NAMELESS, sums, source="usage_hourly")
    day = ("tenant", "hour / 24 * 86400000", *DIMENSIONS[2:])
    yield _filled("usage_daily", DAILY_DIMENSIONS, day, sums, source="usage_hourly")
    month = ("tenant", f"day - day + {_START_MS}", *DIMENSIONS[2:])
    yield _filled("usage_monthly", MONTHLY_DIMENSIONS, month, sums, source="usage_daily")


def _filled(
    table: str,
    names: tuple[str, ...],
    key: tuple[str, ...],
    sums: list[str],
    *,
    source: str,
) -> str:
    named = ", ".join((*names, *SUMS))
    return (
        f"INSERT INTO {table} ({named}) SELECT {', '.join((*key, *sums))} FROM {source} "  # noqa: S608
        f"WHERE tenant <> 'drained' GROUP BY {', '.join(key)}"
    )


async def fill_postgres(server: PostgresServer, database: str, rows: int) -> None:
    """Fills all tables of a database."""
    async with await AsyncConnection.connect(server.dsn(database), autocommit=True) as db:
        await db.execute("SET work_mem = '1GB'")
        await db.execute("SET maintenance_work_mem = '1GB'")
        await db.execute(f"DROP INDEX {INDEX}")
        into = f"COPY usage_events ({', '.join(COLUMNS)}) FROM STDIN"
        async with db.cursor() as cursor, cursor.copy(into) as copy:
            for block in blocks(rows, random.Random(6)):  # noqa: S311 - generated data
                await copy.write(("\n".join(block) + "\n").encode())
        await db.execute(f"CREATE INDEX {INDEX} ON usage_events (tenant, started_ms, id)")
        for statement in roll_ups():
            await db.execute(statement)
        for filled in TABLES:
            await db.execute(f"VACUUM ANALYZE {filled.name}")


def fill_sqlite(file: Path, rows: int) -> None:
    """The same in a file; without statistics, as the gateway's own has none."""
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"DROP INDEX {INDEX}")
    into = f"INSERT INTO usage_events VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    db.execute("BEGIN")
    for block in blocks(rows, random.Random(6)):  # noqa: S311 - generated data
        db.executemany(into, (line.split("\t") for line in block))
    db.execute(f"CREATE INDEX {INDEX} ON usage_events (tenant, started_ms, id)")
    for statement in roll_ups():
        db.execute(statement)
    db.execute("COMMIT")
    db.close()
