"""What the ledger promises over any database: each event once, and sums that add up."""

import asyncio
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_events import (
    HOUR_MS,
    days_of,
    event_id,
    events,
    ids_of,
    make_event,
    nameless_of,
    rolled_up,
    rolled_up_days,
    rolled_up_nameless,
    sums_of,
)
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from atrium_common.errors import Unavailable
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.quota.limits import Meter, Unit, Window
from atrium_gateway.testing.servers import postgres_server
from atrium_gateway.usage.framing import frame
from atrium_gateway.usage.ledger import SpooledLedger
from atrium_gateway.usage.price import PriceBook
from atrium_gateway.usage.records import OpenRecord, Units, closing_record
from atrium_gateway.usage.split import share_id
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.writer import LedgerWriter

_numbers = count()


def make_writer(engine, folder: Path) -> LedgerWriter:
    spool = Spool(folder, segment_bytes=1 << 20, carry=list)
    return LedgerWriter(engine, spool, interval=1)


def make_ledger(engine, folder: Path, *, now_ms: int = 0, segment_bytes: int = 4096):
    return SpooledLedger(
        engine,
        folder,
        segment_bytes=segment_bytes,
        write_interval=0.01,
        clock=lambda: now_ms / 1000,
    )


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_rollups_are_the_sums_of_events_however_they_arrive(engine, tmp_path, data):
    serial = next(_numbers)
    tenant = f"t{serial}"
    made = data.draw(events(serial))
    order = data.draw(st.permutations(range(len(made))))
    replayed = data.draw(st.lists(st.sampled_from(order), max_size=10)) if made else []
    delivered = [made[number] for number in [*order, *replayed]]
    writer = make_writer(engine, tmp_path / tenant)
    while delivered:
        size = data.draw(st.integers(1, len(delivered)))
        await writer._store(delivered[:size])
        delivered = delivered[size:]
    assert await ids_of(engine, tenant) == {event.id: 1 for event in made}
    assert await rolled_up(engine, tenant) == sums_of(made)
    assert await rolled_up_nameless(engine, tenant) == nameless_of(sums_of(made))
    assert await rolled_up_days(engine, tenant) == days_of(sums_of(made))


async def test_two_gateways_that_write_the_same_rows_at_once_neither_lock_nor_double(
    engine, empty_url, tmp_path
):
    other = open_engine(empty_url)
    # Every batch has rows of all hours, and half of its events are the other's, too.
    made = [
        make_event(number, started_ms=number % 7 * HOUR_MS, subject=f"u{number % 5}")
        for number in range(1200)
    ]
    own, others = made[:800], made[400:][::-1]

    async def write(writer: LedgerWriter, mine) -> None:
        for start in range(0, len(mine), 100):
            await writer._store(mine[start : start + 100])

    async with asyncio.timeout(60):
        await asyncio.gather(
            write(make_writer(engine, tmp_path / "a"), own),
            write(make_writer(other, tmp_path / "b"), others),
        )
    await other.dispose()
    assert len(await ids_of(engine)) == len(made)
    assert await rolled_up(engine) == sums_of(made)


async def test_a_spool_that_is_read_again_adds_nothing(engine, tmp_path):
    made = [make_event(number, started_ms=number) for number in range(40)]
    split = [make_event(100, model="a"), make_event(101, model="b", requests=0)]
    lines = b"".join(frame(closing_record([each])) for each in made) + frame(closing_record(split))
    for life in range(3):
        folder = tmp_path / f"life{life}"
        folder.mkdir()
        # As if the process had died before it could delete what was committed.
        (folder / "0000000001.spool").write_bytes(lines)
        ledger = make_ledger(engine, folder)
        await ledger.start(PriceBook())
        await ledger.stop()
    assert len(await ids_of(engine)) == 42
    assert await rolled_up(engine) == sums_of([*made, *split])


async def test_a_database_that_dies_under_load_gets_everything_when_it_is_back(tmp_path):
    with postgres_server() as server:
        engine = open_engine(server.new_database("mortal"))
        await upgrade(engine)
        ledger = make_ledger(engine, tmp_path)
        await ledger.start(PriceBook())
        made = [make_event(number, started_ms=number * 60_000) for number in range(900)]
        await asyncio.gather(*(ledger.close([event]) for event in made[:300]))
        server.kill()
        for start in range(300, 900, 50):  # what settles is on disk all the same
            await asyncio.gather(*(ledger.close([each]) for each in made[start : start + 50]))
        with pytest.raises(Unavailable):
            await ledger.flush()
        files = len(list(tmp_path.glob("*.spool")))
        server.start()
        await ledger.flush()
        assert files > len(list(tmp_path.glob("*.spool")))
        assert len(await ids_of(engine)) == len(made)
        assert await rolled_up(engine) == sums_of(made)
        await ledger.stop()
        await engine.dispose()


async def test_a_batch_is_stored_with_its_sums_or_not_at_all(engine, tmp_path):
    writer = make_writer(engine, tmp_path)
    await writer._store([make_event(1)])
    too_long = make_event(3, outcome="completed", tokens=2**62)
    with pytest.raises((SQLAlchemyError, OverflowError)):
        await writer._store([make_event(2, tokens=1), too_long])
    assert await ids_of(engine) == {event_id(1): 1}
    assert await rolled_up(engine) == sums_of([make_event(1)])


async def test_what_a_crash_left_open_is_charged_once_by_whoever_finds_it(engine, tmp_path):
    record = OpenRecord(event_id(7), "acme", "u", "chat", "m", "x", "r", 5, Units(0, 11))
    for life in range(2):  # the same spool twice, as after a restored disk
        folder = tmp_path / f"life{life}"
        folder.mkdir()
        (folder / "0000000001.spool").write_bytes(frame(record))
        ledger = make_ledger(engine, folder, now_ms=HOUR_MS)
        assert await ledger.start(PriceBook()) == 1
        await ledger.stop()
    ((key, sums),) = (await rolled_up(engine)).items()
    assert key[-1] == "orphaned"
    assert sums[:3] == [1, 0, 11]
    assert await ids_of(engine) == {event_id(7): 1}


def meter(unit: Unit, window: Window, **fields) -> Meter:
    named = {"capability": "*", "limit": 1, "scale": 1, "scope": "", "key": "c", **fields}
    return Meter(unit=unit, window=window, **named)


async def test_counters_are_told_what_their_window_consumed(engine, tmp_path):
    now = 40 * 24 * HOUR_MS  # 10 February 1970, UTC
    made = [
        make_event(1, started_ms=now, tokens=1, model="n", key_id="k", subject="v"),
        make_event(2, started_ms=now - HOUR_MS, tokens=10, capability="embedding"),
        make_event(3, started_ms=now - 9 * 24 * HOUR_MS, tokens=100, key_id="k"),
        make_event(4, started_ms=now - 10 * 24 * HOUR_MS, tokens=1000),
    ]
    await make_writer(engine, tmp_path)._store(made)
    ledger = make_ledger(engine, tmp_path / "spool", now_ms=now)

    async def used(window: Window, unit: Unit = Unit.TOKENS, **fields) -> int:
        return await ledger.consumed("acme", meter(unit, window, **fields))

    assert await used(Window.HOUR) == 3
    assert await used(Window.DAY) == 3
    assert await used(Window.MONTH) == 3 * 111
    assert await used(Window.TOTAL) == 3 * 1111
    assert await used(Window.MONTH, Unit.REQUESTS) == 3
    assert await used(Window.MONTH, capability="embedding") == 30
    assert await used(Window.MONTH, key_id="k") == 303
    assert await used(Window.MONTH, key_id="k", model="n", subject="v") == 3
    assert await used(Window.TOTAL, subject="u", model="m") == 3330
    # 5 thousandths of a millionth for each token, in whole millionths.
    assert await used(Window.TOTAL, Unit.COST) == 6
    assert await ledger.consumed("globex", meter(Unit.TOKENS, Window.TOTAL)) == 0
    await ledger.stop()


async def test_what_a_window_consumed_is_told_apart_from_some_reservations(engine, tmp_path):
    now = 40 * 24 * HOUR_MS
    whole, split, other = (event_id(number) for number in (1, 2, 3))
    made = [
        make_event(1, started_ms=now, tokens=1),
        make_event(2, started_ms=now, tokens=10),
        replace(make_event(9, started_ms=now, tokens=100, model="n"), id=share_id(split, "n")),
        make_event(3, started_ms=now, tokens=1000),
    ]
    await make_writer(engine, tmp_path)._store(made)
    ledger = make_ledger(engine, tmp_path / "spool", now_ms=now)

    async def used(*apart: str, **fields) -> int:
        return await ledger.consumed("acme", meter(Unit.TOKENS, Window.DAY, **fields), apart)

    assert await used() == 3 * 1111
    assert await used(split) == 3 * 1001
    assert await used(split, model="n") == 0
    assert await used(whole, split, event_id(77)) == 3 * 1000
    assert await used(*(event_id(number) for number in range(10, 1000)), other) == 3 * 111
    await ledger.stop()


async def test_a_day_that_begins_within_an_hour_is_counted_to_the_millisecond(engine, tmp_path):
    midnight = 40 * 24 * HOUR_MS - HOUR_MS * 11 // 2  # in Kolkata, 18:30 of UTC
    times = (midnight - 1, midnight, midnight + HOUR_MS // 2 - 1, midnight + 3 * HOUR_MS)
    made = [make_event(n, started_ms=time, tokens=10**n) for n, time in enumerate(times)]
    await make_writer(engine, tmp_path)._store(made)
    ledger = make_ledger(engine, tmp_path / "spool", now_ms=midnight + 5 * HOUR_MS)
    own = {"time_zone": "Asia/Kolkata"}
    assert await ledger.consumed("acme", meter(Unit.TOKENS, Window.DAY, **own)) == 3330
    assert await ledger.consumed("acme", meter(Unit.TOKENS, Window.DAY)) == 3333
    await ledger.stop()


async def test_an_event_waits_for_its_disk_and_not_for_the_database(engine, tmp_path):
    ledger = make_ledger(engine, tmp_path, segment_bytes=1 << 20)
    await ledger.start(PriceBook())
    async with engine.begin() as held, asyncio.timeout(5):
        # A lock that the writer must wait for.
        if engine.dialect.name == "postgresql":
            await held.exec_driver_sql("LOCK TABLE usage_events IN EXCLUSIVE MODE")
        else:
            await held.exec_driver_sql("BEGIN IMMEDIATE")
        started = asyncio.get_running_loop().time()
        for number in range(20):
            await ledger.close([make_event(number)])
        assert asyncio.get_running_loop().time() - started < timedelta(seconds=3).total_seconds()
    await ledger.flush()
    assert len(await ids_of(engine)) == 20
    await ledger.stop()


async def test_a_text_that_no_column_takes_does_not_hold_up_what_follows(engine, tmp_path):
    long = make_event(1, subject="\0" + "ü" * 300, request_id="r" * 1000)
    (tmp_path / "0000000001.spool").write_bytes(frame(long) + frame(make_event(2)))
    ledger = make_ledger(engine, tmp_path)
    await ledger.start(PriceBook())
    assert len(await ids_of(engine)) == 2
    assert {key[5] for key in await rolled_up(engine)} == {"ü" * 200, "u"}
    await ledger.stop()
