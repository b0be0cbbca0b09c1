"""The ledger between disk and database: torn lines, rotation, an absent database, true sums."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import open_core
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.usage.framing import frame, records, unframe
from atrium_gateway.usage.records import OpenRecord, Units, UsageEvent
from atrium_gateway.usage.recovery import scan
from atrium_gateway.usage.reports import Group, UsageReports
from atrium_gateway.usage.spool import Spool, segment_path, segments
from atrium_gateway.usage.writer import LedgerWriter

HOUR = timedelta(hours=1)
UNLIMITED = Tenant(
    id="dev",
    name="",
    blocked=False,
    unlimited=True,
    weight=1.0,
    limits=(),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def opened(key: str, tokens: int = 5) -> OpenRecord:
    return OpenRecord(key, "acme", "u", "chat", "m", "x", "r", 0, Units(tokens))


def closed(key: str, tokens: int = 5, text: str = "r") -> UsageEvent:
    units = Units(tokens)
    return UsageEvent(key, "acme", "u", "chat", "m", "x", text, 0, 1, "completed", units, units)


@given(st.text(max_size=300), st.integers(0, 2**60))
def test_a_record_reads_back_whatever_its_text(text, tokens):
    event = closed("a", tokens, text)
    line = frame(event)
    assert line.count(b"\n") == 1
    assert unframe(line[:-1]) == event


@given(st.integers(0, 1000), st.integers(1, 255))
def test_no_torn_or_spoilt_line_passes_for_a_record(place, flip):
    line = frame(closed("a"))[:-1]
    place %= len(line)
    assert unframe(line[:place]) is None
    assert unframe(line[:place] + bytes([line[place] ^ flip]) + line[place + 1 :]) is None


def test_a_torn_tail_is_not_reported_and_a_spoilt_line_does_not_hide_the_next():
    data = frame(closed("a")) + b"garbage\n" + frame(closed("b")) + frame(closed("c"))[:-9]
    assert [record and record.id for record, _ in records(data)] == ["a", None, "b"]


def test_recovery_finds_what_is_open_across_files(tmp_path: Path):
    segment_path(tmp_path, 1).write_bytes(
        frame(opened("a")) + frame(opened("b")) + frame(opened("c")) + frame(closed("b"))
    )
    segment_path(tmp_path, 2).write_bytes(
        frame(opened("a", 9)) + frame(closed("c")) + frame(opened("d"))[:-3]
    )
    found = scan(tmp_path)
    assert [(record.id, record.reserved.input_tokens) for record in found.open] == [("a", 9)]
    assert found.spoilt == 0


async def test_many_requests_share_an_fsync(tmp_path: Path):
    syncs = []
    spool = Spool(tmp_path, segment_bytes=1 << 20, carry=list, sync=syncs.append)
    await asyncio.gather(*(spool.append_durably(b"line\n") for _ in range(500)))
    await spool.close()
    assert len(syncs) <= 3
    assert segment_path(tmp_path, 1).read_bytes() == b"line\n" * 500


async def test_a_full_segment_is_followed_by_one_that_starts_with_what_is_open(tmp_path: Path):
    open_lines = [b"open\n"]
    spool = Spool(tmp_path, segment_bytes=10, carry=lambda: open_lines, sync=lambda _: None)
    for _ in range(3):
        await spool.append_durably(b"0123456789\n")
    await spool.close()
    assert segments(tmp_path) == [1, 2, 3]
    assert segment_path(tmp_path, 3).read_bytes() == b"open\n0123456789\n"


async def test_a_line_that_nobody_awaits_reaches_the_disk_soon(tmp_path: Path):
    spool = Spool(tmp_path, segment_bytes=1 << 20, carry=list)
    spool.append(b"line\n")
    await asyncio.sleep(0.5)
    assert segment_path(tmp_path, 1).read_bytes() == b"line\n"
    await spool.close()


async def test_after_a_failed_fsync_the_lines_go_into_a_new_file(tmp_path: Path):
    failing = True

    def sync(_: int) -> None:
        if failing:
            raise OSError(5, "Input/output error")

    spool = Spool(tmp_path, segment_bytes=1 << 20, carry=list, sync=sync)
    with pytest.raises(Unavailable):
        await spool.append_durably(b"a\n")
    assert spool.failing
    failing = False
    await spool.sync()
    await spool.append_durably(b"b\n")
    assert not spool.failing
    await spool.close()
    assert segment_path(tmp_path, segments(tmp_path)[-1]).read_bytes() == b"a\nb\n"


async def reserve(core, tenant):
    return await core.admission.admit(
        tenant,
        capability="chat",
        model="m",
        estimate=Usage(output_tokens=50),
        request_id="r",
        method="m",
    )


async def use(core, tenant, amount):
    reservation = await reserve(core, tenant)
    await core.admission.settle(reservation.id, Usage(output_tokens=amount), Outcome.COMPLETED)


async def test_while_the_database_is_away_the_spool_grows_and_nothing_is_lost(
    core, clock, make_tenant, monkeypatch
):
    dev = await make_tenant("dev", unlimited=True)
    await use(core, dev, 1)
    await core.ledger.flush()
    writer = core.ledger._writer
    working = writer._store

    async def refuse(events):
        raise OperationalError("INSERT", {}, OSError("gone"))

    monkeypatch.setattr(writer, "_store", refuse)
    before = core.ledger.spool.committed.offset
    for amount in range(2, 30):
        await use(core, dev, amount)
    now = datetime.fromtimestamp(clock(), UTC)
    with pytest.raises(Unavailable):
        await core.reports.totals("dev", start=now - HOUR, end=now + HOUR)
    assert core.ledger.spool.committed.offset > before
    monkeypatch.setattr(writer, "_store", working)
    charged = await core.reports.totals("dev", start=now - HOUR, end=now + HOUR)
    assert (charged.requests, charged.output_tokens) == (29, sum(range(30)))


async def test_files_are_deleted_once_the_database_has_them_and_what_is_open_stays(
    settings, catalogue, clock, tmp_path
):
    small = settings.model_copy(
        update={"state_dir": tmp_path / "small", "spool_segment_bytes": 4096}
    )
    async with open_core(small, catalogue=catalogue, clock=clock) as core:
        await core.tenants.create_tenant(UNLIMITED)
        dev = Principal(tenant="dev", subject="u")
        long_running = await reserve(core, dev)
        for amount in range(60):
            await use(core, dev, amount)
        assert core.ledger.spool.committed.segment > 3
        await core.ledger.flush()
        assert segments(small.spool_dir) == [core.ledger.spool.committed.segment]
        assert [record.id for record in scan(small.spool_dir).open] == [long_running.id]


async def test_a_batch_that_was_stored_already_adds_nothing(core, clock, make_tenant):
    writer = core.ledger._writer
    await writer._store([closed("a", 3), closed("b", 4)])
    await writer._store([closed("b", 4), closed("c", 5), closed("c", 5)])
    await writer._store([closed("a", 3)])
    epoch = datetime.fromtimestamp(0, UTC)
    charged = await core.reports.totals("acme", start=epoch, end=epoch + HOUR)
    assert (charged.requests, charged.input_tokens) == (3, 12)


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acme", "globex"]),
            st.sampled_from(["chat", "embedding"]),
            st.sampled_from(["m", "n"]),
            st.integers(0, 72),
            st.integers(0, 10**6),
            st.booleans(),
        ),
        max_size=40,
    )
)
async def test_totals_equal_the_sum_of_events_however_they_are_grouped(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("sums")
    engine = open_engine(f"sqlite+aiosqlite:///{folder}/x.db")
    await upgrade(engine)
    writer = LedgerWriter(engine, Spool(folder, segment_bytes=1, carry=list), interval=1)
    for number, (tenant, capability, model, hour, tokens, refunded) in enumerate(rows):
        units = Units() if refunded else Units(tokens, tokens * 2)
        await writer._store(
            [
                UsageEvent(
                    f"{number:036}",
                    tenant,
                    "u",
                    capability,
                    model,
                    "x",
                    "r",
                    hour * 3_600_000 + number,
                    0,
                    "refunded" if refunded else "completed",
                    units,
                    units,
                    0 if refunded else 1,
                    0 if refunded else tokens * 7,
                )
            ]
        )

    async def nothing() -> None:
        return None

    reports = UsageReports(engine, flush=nothing)
    start = datetime.fromtimestamp(0, UTC)
    for tenant in ("acme", "globex"):
        events = await reports.events(tenant, start=start, end=start + 80 * HOUR, limit=1000)
        assert len(events) == sum(row[0] == tenant for row in rows)
        for by in ((), (Group.MODEL,), (Group.CAPABILITY, Group.HOUR), (Group.DAY, Group.MODEL)):
            groups = await reports.groups(tenant, start=start, end=start + 80 * HOUR, by=by)
            expected = defaultdict(lambda: [0, 0, 0, 0])
            for event in events:
                day = event.started_at.replace(hour=0, minute=0, second=0, microsecond=0)
                hour = event.started_at.replace(minute=0, second=0, microsecond=0)
                key = (
                    hour if Group.HOUR in by else day if Group.DAY in by else None,
                    event.capability if Group.CAPABILITY in by else None,
                    event.model if Group.MODEL in by else None,
                )
                sums = expected[key]
                sums[0] += event.totals.requests
                sums[1] += event.totals.refunded
                sums[2] += event.totals.output_tokens
                sums[3] += event.totals.cost
            found = {
                (g.start, g.capability, g.model): [
                    g.totals.requests,
                    g.totals.refunded,
                    g.totals.output_tokens,
                    g.totals.cost,
                ]
                for g in groups
            }
            assert found == dict(expected)
    await engine.dispose()


async def test_events_come_in_pages_newest_first(core, clock, make_tenant):
    dev = await make_tenant("dev", unlimited=True)
    for amount in range(7):
        await use(core, dev, amount)
        clock.advance(timedelta(milliseconds=amount % 2))
    now = datetime.fromtimestamp(clock(), UTC)
    span = {"start": now - HOUR, "end": now + HOUR}
    seen, after = [], None
    while page := await core.reports.events("dev", **span, limit=3, after=after):
        seen += [event.totals.output_tokens for event in page]
        after = page[-1].id
    assert sorted(seen) == list(range(7))
    assert seen == sorted(seen, reverse=True)
    with pytest.raises(InvalidArgument):
        await core.reports.events("dev", start=now, end=now)
    with pytest.raises(InvalidArgument):
        await core.reports.events("dev", **span, limit=0)
