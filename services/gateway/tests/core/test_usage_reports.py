"""Reports are the sum of the events, whatever the period, the buckets, groups and filters."""

from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from atrium_common.errors import InvalidArgument
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.testing.servers import postgres_server
from atrium_gateway.usage.records import Units, UsageEvent
from atrium_gateway.usage.reports import Bucket, Filters, Group, UsageReports
from atrium_gateway.usage.reports_calendar import DAY_MS, month_bounds, unix_ms
from atrium_gateway.usage.reports_cover import (
    Level,
    cover,
    cover_buckets,
    cover_from_hours,
    cover_whole,
    hour_around,
)
from atrium_gateway.usage.rezone import rezone
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.writer import LedgerWriter
from atrium_gateway.usage.zones import day_around, month_around

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
CHANGE = datetime(2026, 10, 25, tzinfo=UTC)
"""Europe's clocks go back on this day, New York's a week later."""
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Asia/Kathmandu",  # 5:45 ahead: its days end within hours
    "Australia/Lord_Howe",  # changes its clocks by half an hour
    "Pacific/Kiritimati",
)
TENANTS = count()
GROUPS = (Group.CAPABILITY, Group.MODEL, Group.KEY, Group.USER, Group.STATUS)


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
async def ledger(request, tmp_path_factory) -> AsyncIterator[tuple[LedgerWriter, UsageReports]]:
    folder = tmp_path_factory.mktemp("reports")
    url = f"sqlite+aiosqlite:///{folder}/x.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database("reports")
    engine = open_engine(url)
    await upgrade(engine)

    async def nothing() -> None:
        return None

    spool = Spool(folder, segment_bytes=1, carry=list)
    yield LedgerWriter(engine, spool, interval=1), UsageReports(engine, flush=nothing)
    await spool.close()
    await engine.dispose()


def minutes(most: int) -> st.SearchStrategy[int]:
    """Milliseconds around the change of clocks, often at the edges of minutes and hours."""
    edges = st.builds(
        lambda minute, off: minute * 15 * 60_000 + off,
        st.integers(-most // 15, most // 15),
        st.sampled_from([-1, 0, 0, 1]),
    )
    return edges | st.integers(-most * 60_000, most * 60_000)


rows = st.tuples(
    minutes(3000),
    st.sampled_from(["chat", "embedding"]),
    st.sampled_from(["m", "n", "'; --"]),
    st.sampled_from([None, "k1", "k2"]),
    st.sampled_from(["anna", "bert", "=cmd()"]),
    st.sampled_from(["completed", "cancelled", "refunded"]),
    st.integers(0, 10**9),
)


def event(tenant: str, number: int, row) -> UsageEvent:
    offset, capability, model, key, subject, outcome, amount = row
    refunded = outcome == "refunded"
    units = Units() if refunded else Units(amount, 1, images=2)
    started = unix_ms(CHANGE) + offset
    return UsageEvent(
        f"{tenant}-{number}",
        tenant,
        subject,
        capability,
        model,
        "x",
        "r",
        started,
        started + 5,
        outcome,
        units,
        units,
        0 if refunded else 1,
        0 if refunded else amount * 7,
        key_id=key,
        inference_ms=amount % 1000,
    )


@st.composite
def questions(draw):
    bucket = draw(st.sampled_from([None, *Bucket]))
    start, length = draw(minutes(2000)), draw(st.integers(1, 24 * HOUR_MS))
    if bucket is not Bucket.MINUTE:
        length = draw(st.integers(1, 90 * HOUR_MS) | st.just(24 * HOUR_MS))
    some = lambda values: st.just(()) | st.lists(st.sampled_from(values), max_size=2).map(tuple)  # noqa: E731
    only = Filters(
        capability=draw(some(["chat", "speech"])),
        model=draw(some(["m", "'; --"])),
        key=draw(some(["", "k1"])),
        user=draw(some(["anna", "=cmd()"])),
        status=draw(some(["completed", "refunded"])),
    )
    begins = CHANGE + timedelta(milliseconds=start)
    return {
        "start": begins,
        "end": begins + timedelta(milliseconds=length),
        "by": draw(st.lists(st.sampled_from(GROUPS), unique=True)),
        "bucket": bucket,
        "zone": ZoneInfo(draw(st.sampled_from(ZONES))),
        "only": only,
    }


def bucket_of(ms: int, bucket: Bucket | None, zone: ZoneInfo) -> datetime | None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    if bucket is Bucket.MINUTE:
        return moment.replace(second=0, microsecond=0)
    if bucket is Bucket.HOUR:
        return moment.replace(minute=0, second=0, microsecond=0)
    if bucket is Bucket.DAY:
        return datetime.combine(moment.astimezone(zone), time.min, zone).astimezone(UTC)
    return None


def expected(events, *, start, end, by, bucket, zone, only):
    sums = defaultdict(lambda: [0] * 6)
    for each in events:
        key = each.key_id or ""
        dimensions = (each.capability, each.model, key, each.subject, each.outcome)
        wanted = (only.capability, only.model, only.key, only.user, only.status)
        passes = all(not w or d in w for d, w in zip(dimensions, wanted, strict=True))
        if not passes or not unix_ms(start) <= each.started_ms < unix_ms(end):
            continue
        named = (
            value if group in by else None for group, value in zip(GROUPS, dimensions, strict=True)
        )
        kept = sums[bucket_of(each.started_ms, bucket, zone), *named]
        amounts = (
            each.requests,
            int(each.outcome == "refunded"),
            each.units.input_tokens,
            each.units.images,
            each.inference_ms,
            each.cost_nano,
        )
        kept[:] = [a + b for a, b in zip(kept, amounts, strict=True)]
    return dict(sums)


def told(group):
    totals = group.totals
    key = (group.start, group.capability, group.model, group.key, group.user, group.status)
    return key, [
        totals.requests,
        totals.refunded,
        totals.input_tokens,
        totals.images,
        totals.inference_time // timedelta(milliseconds=1),
        int(totals.cost.scaleb(9)),
    ]


@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    happened=st.lists(rows, max_size=30),
    asked=st.lists(questions(), min_size=1, max_size=3),
    page=st.integers(1, 7),
    moves=st.lists(st.sampled_from(ZONES), max_size=2),
)
async def test_reports_are_the_sum_of_the_events(ledger, happened, asked, page, moves):
    writer, reports = ledger
    tenant, other = f"t{next(TENANTS)}", f"t{next(TENANTS)}"
    events = [event(tenant, number, row) for number, row in enumerate(happened)]
    await writer._store([event(other, number, row) for number, row in enumerate(happened)])
    await writer._store(events[::2])
    for zone in moves:
        assert await rezone(writer._engine, tenant, zone)
    await writer._store(events)
    for question in asked:
        wanted = expected(events, **question)
        found = [told(group) for group in await reports.groups(tenant, **question)]
        assert dict(found) == wanted or (not question["by"] and not wanted)
        assert len(found) == len(dict(found))
        paged, after = [], ()
        while groups := await reports.groups(tenant, **question, limit=page, after=after):
            paged += [told(group) for group in groups]
            after = groups[-1].place
            if not after:
                break
        assert paged == found
        plain = {name: question[name] for name in ("start", "end", "only")}
        whole = await reports.totals(tenant, **plain)
        assert whole.requests == sum(sums[0] for sums in wanted.values())
        assert whole.input_tokens == sum(sums[2] for sums in wanted.values())
        assert int(whole.cost.scaleb(9)) == sum(sums[5] for sums in wanted.values())
        listed = await reports.events(tenant, **plain, limit=1000)
        assert sum(each.totals.requests for each in listed) == whole.requests


@given(
    st.integers(0, 10**12),
    st.integers(1, 100 * DAY_MS),
    st.sampled_from(ZONES),
    st.sampled_from(ZONES),
)
def test_a_cover_counts_every_millisecond_of_the_period_once_and_no_other(
    start, length, kept, zone
):
    end = start + length
    days, own = lambda ms: day_around(ms, zone), lambda ms: day_around(ms, kept)
    within = {Level.MONTH: lambda ms: month_around(ms, kept), Level.DAY: own}
    within[Level.HOUR] = hour_around
    first, beyond = days(start)
    for covered, lo, hi in (
        (cover(start, end, kept), start, end),
        (cover_buckets(start, end, days, kept), start, end),
        (cover_whole(start, end, own, kept, Level.DAY), start, end),
        (cover_whole(start, end, hour_around, kept, Level.HOUR), start, end),
        (cover_from_hours(first, beyond), first, beyond),
    ):
        changes = defaultdict(int)
        for piece in covered:
            assert piece.start < piece.end
            for edge in (piece.start, piece.end):
                if piece.level in within:
                    assert within[piece.level](edge)[0] == edge, piece
            changes[piece.start] += piece.sign
            changes[piece.end] -= piece.sign
        assert {at: change for at, change in changes.items() if change} == {lo: 1, hi: -1}


@given(st.integers(0, 10**12), st.integers(1, 100 * DAY_MS), st.sampled_from(ZONES))
def test_the_ends_of_a_period_take_few_rows(start, length, kept):
    rows = {Level.HOUR: 0, Level.EVENT: 0}
    for piece in cover(start, start + length, kept):
        if piece.level in rows:
            rows[piece.level] += piece.end - piece.start
    assert rows[Level.HOUR] <= DAY_MS + HOUR_MS
    assert rows[Level.EVENT] <= 2 * HOUR_MS


def test_months_are_those_of_the_zone():
    start, end = month_bounds(2026, 12, ZoneInfo("Europe/Berlin"))
    assert (start, end) == (
        datetime(2026, 11, 30, 23, tzinfo=UTC),
        datetime(2026, 12, 31, 23, tzinfo=UTC),
    )
    start, end = month_bounds(2026, 10, ZoneInfo("Europe/Berlin"))
    assert end - start == timedelta(days=31) + HOUR


async def test_what_no_report_can_be_is_refused(ledger):
    _, reports = ledger
    day = timedelta(days=1)
    for wrong in (
        {"end": CHANGE},
        {"end": CHANGE - HOUR},
        {"end": CHANGE + day + HOUR, "bucket": Bucket.MINUTE},
        {"end": CHANGE + 4000 * day, "bucket": Bucket.DAY, "zone": ZoneInfo("Europe/Berlin")},
        {"end": CHANGE + day, "after": (1, "m")},
        {"end": CHANGE + day, "after": ("m", 1), "bucket": Bucket.HOUR},
        {"end": CHANGE + day, "after": (1 << 63, "m"), "bucket": Bucket.HOUR},
        {"end": CHANGE + day, "after": ("m\0",)},
    ):
        with pytest.raises(InvalidArgument):
            await reports.groups("acme", start=CHANGE, by=[Group.MODEL], **wrong)
