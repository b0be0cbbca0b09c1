"""Old events go once the sums tell the same; what leaves as a file comes back as it was."""

import csv
import io
import json
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_events import HOUR_MS, event_id, ids_of, make_event, rolled_up, rolled_up_days
from sqlalchemy import update

from atrium_gateway.usage.export import Format, export_events, write_events
from atrium_gateway.usage.late import late_events
from atrium_gateway.usage.records import Units
from atrium_gateway.usage.reports_csv import plain_text
from atrium_gateway.usage.retention import Retention
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.tables import usage_hourly
from atrium_gateway.usage.writer import LedgerWriter

EPOCH = datetime.fromtimestamp(0, UTC)
_serials = count(1000)
FAR = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(engine, tmp_path):
    spool = Spool(tmp_path / "spool", segment_bytes=1 << 20, carry=list)
    return LedgerWriter(engine, spool, interval=1)._store


def hour(number: int, minutes: int = 0) -> datetime:
    return datetime.fromtimestamp(number * 3600 + minutes * 60, UTC)


async def test_events_before_the_hour_go_and_the_sums_stay(engine, store):
    made = [make_event(n, started_ms=n * HOUR_MS) for n in (0, 1, 30, 99, 100, 101)]
    await store([*made, make_event(7, started_ms=0, tenant="globex")])
    before = await rolled_up(engine)
    retention = Retention(engine)
    for dry, left in ((True, 6), (False, 2)):
        done = await retention.apply(hour(100, 59), dry_run=dry)
        assert (done.deleted, done.kept) == (5, 0)
        assert len(await ids_of(engine)) == left
    assert (await retention.apply(hour(100, 59))).deleted == 0
    assert await ids_of(engine, "globex") == {}
    assert await rolled_up(engine) == before


@pytest.mark.parametrize("column", ["events", "output_tokens", "cost_nano", "provider_cost_nano"])
async def test_what_the_sums_lack_is_never_deleted(engine, store, column):
    await store([make_event(n, started_ms=n * HOUR_MS) for n in range(3)])
    async with engine.begin() as connection:
        lacking = update(usage_hourly).where(usage_hourly.c.hour == 1)
        await connection.execute(lacking.values({column: usage_hourly.c[column] - 1}))
    done = await Retention(engine).apply(hour(9))
    assert (done.deleted, done.kept) == (2, 1)
    assert await ids_of(engine) == {event_id(1): 1}


async def test_a_spool_that_comes_back_after_its_events_were_deleted_counts_nothing_twice(
    engine, store
):
    spool = [make_event(n, started_ms=n % 4 * HOUR_MS) for n in range(8)]
    await store(spool)
    before = await rolled_up(engine), await rolled_up_days(engine)
    assert (await Retention(engine).apply(hour(2))).deleted == 4
    never_seen = make_event(100, started_ms=HOUR_MS)
    for _ in range(2):
        await store([*spool, never_seen])
        assert (await rolled_up(engine), await rolled_up_days(engine)) == before
        assert len(await ids_of(engine)) == 4
    # What may or may not have been counted is kept for a person to look at.
    kept = {event.id: event for event in await late_events(engine)}
    assert kept == {each.id: each for each in [*spool, never_seen] if each.started_ms < 2 * HOUR_MS}
    await store([make_event(200, started_ms=2 * HOUR_MS)])
    assert len(await ids_of(engine)) == 5


async def test_what_retention_kept_is_known_when_it_comes_back(engine, store):
    made = [make_event(n, started_ms=n * HOUR_MS) for n in range(3)]
    await store(made)
    async with engine.begin() as connection:
        lacking = update(usage_hourly).where(usage_hourly.c.hour == 1)
        await connection.execute(lacking.values(events=0))
    await Retention(engine).apply(hour(9))
    await store([made[1]])
    assert await late_events(engine) == []


async def test_the_mark_never_goes_back(engine, store):
    await Retention(engine).apply(hour(9))
    await Retention(engine).apply(hour(3))
    await store([make_event(1, started_ms=5 * HOUR_MS)])
    assert await ids_of(engine) == {}


async def exported(engine, form: Format, *, tenant: str = "acme", **options) -> str:
    text = io.StringIO()
    lines = export_events(engine, tenant, start=EPOCH, end=FAR, page=2, **options)
    await write_events(lines, text.write, form=form)
    return text.getvalue()


async def exported_lines(engine, **options) -> list[str]:
    # Not splitlines, which takes more for the end of a line than JSON Lines does.
    return (await exported(engine, Format.JSONL, **options)).split("\n")[:-1]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    subject=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
)
async def test_csv_and_json_lines_say_the_same_whatever_a_subject_is_called(engine, store, subject):
    serial = next(_serials)
    tenant = f"t{serial}"
    await store([make_event(serial * 3 + n, tenant=tenant, subject=subject) for n in range(3)])
    lines = map(json.loads, await exported_lines(engine, tenant=tenant))
    text = await exported(engine, Format.CSV, tenant=tenant)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 3
    assert [{name: plain_text(cell) for name, cell in row.items()} for row in rows] == [
        {name: as_cell(value) for name, value in line.items()} for line in lines
    ]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


def as_cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, separators=(",", ":"))


async def test_an_export_has_every_event_of_its_time_in_order(engine, store):
    same_time = [make_event(n, started_ms=5) for n in range(5)]
    later = [make_event(10 + n, started_ms=1_234_567 + n) for n in range(4)]
    await store([*later, *same_time, make_event(99, tenant="globex")])
    lines = [json.loads(x) for x in await exported_lines(engine)]
    assert [line["id"] for line in lines] == [event_id(n) for n in (*range(5), *range(10, 14))]
    assert lines[5]["started_at"] == "1970-01-01T00:20:34.567+00:00"
    assert "provider_cost" not in lines[0]
    some = export_events(
        engine, "acme", start=hour(0), end=datetime.fromtimestamp(1234.568, UTC), page=3
    )
    assert len([line async for line in some]) == 6


async def test_money_leaves_exactly(engine, store):
    await store([make_event(1, cost_nano=1, provider_cost_nano=12 * 10**9, units=Units(2))])
    (line,) = map(json.loads, await exported_lines(engine, with_provider_cost=True))
    assert (line["cost"], line["provider_cost"]) == ("0.000000001", "12")
    assert line["reserved"] == {"input_tokens": 3, "output_tokens": 9}
