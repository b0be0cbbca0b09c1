"""Counters start with the sum of their window's events, whatever zones it and the sums have."""

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_events import HOUR_MS, event_id, make_event
from sqlalchemy import event as database_event

from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import LEDGERED, Meter, Unit, Window
from atrium_gateway.usage.ledger import SpooledLedger
from atrium_gateway.usage.records import Units
from atrium_gateway.usage.rezone import rezone
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.writer import LedgerWriter

APRIL = 1_775_001_600_000  # 1 April 2026 in UTC
ZONES = (
    "UTC",
    "America/New_York",
    "Asia/Kathmandu",  # 5:45 ahead: its days end within hours
    "Australia/Lord_Howe",  # puts its clocks back by half an hour in this week
    "Pacific/Kiritimati",
)
WINDOWS = sorted(LEDGERED)
AMOUNTS = {
    Unit.REQUESTS: lambda event: event.requests,
    Unit.TOKENS: lambda event: event.units.input_tokens + event.units.output_tokens,
    Unit.AUDIO_SECONDS: lambda event: event.units.input_audio_ms + event.units.output_audio_ms,
    Unit.CHARACTERS: lambda event: event.units.characters,
    Unit.IMAGES: lambda event: event.units.images,
    Unit.MEGAPIXEL_STEPS: lambda event: event.units.millimegapixel_steps,
    Unit.PAGES: lambda event: event.units.pages,
    Unit.GPU_MILLISECONDS: lambda event: event.inference_ms,
    Unit.COST: lambda event: event.cost_nano,
}
_numbers = count()

near = st.builds(
    lambda quarter, off: APRIL + quarter * HOUR_MS // 4 + off,
    st.integers(-120, 120) | st.integers(-3200, 3200),
    st.sampled_from([-1, 0, 1]),
)
happened = st.tuples(
    near,
    st.sampled_from(["chat", "embedding"]),
    st.sampled_from(["m", "n"]),
    st.sampled_from([None, "k1", "k2"]),
    st.sampled_from(["ann", "bob"]),
    st.integers(1, 10**6),
)


def event(number: int, tenant: str, row):
    started, capability, model, key, subject, amount = row
    return make_event(
        number,
        tenant=tenant,
        started_ms=started,
        capability=capability,
        model=model,
        key_id=key,
        subject=subject,
        units=Units(*(amount * factor for factor in range(1, 1 + len(Units.__struct_fields__)))),
        requests=number % 2,
        cost_nano=amount * 999_000,
        inference_ms=amount % 977,
    )


@st.composite
def meters(draw) -> Meter:
    window = draw(st.sampled_from(WINDOWS))
    zoned = window in (Window.DAY, Window.MONTH)
    return Meter(
        key="c",
        capability=draw(st.sampled_from(["*", "chat"])),
        unit=draw(st.sampled_from(Unit)),
        window=window,
        limit=1,
        scale=1,
        scope="",
        model=draw(st.sampled_from(["", "m"])),
        key_id=draw(st.sampled_from(["", "k1"])),
        subject=draw(st.sampled_from(["", "ann"])),
        time_zone=draw(st.sampled_from(ZONES)) if zoned else "UTC",
    )


def consumed(events, meter: Meter, now: int) -> int:
    start, end = window_bounds(meter.window, now, meter.time_zone)
    total = sum(
        AMOUNTS[meter.unit](each)
        for each in events
        if start <= each.started_ms < end
        and meter.capability in ("*", each.capability)
        and meter.model in ("", each.model)
        and meter.key_id in ("", each.key_id)
        and meter.subject in ("", each.subject)
    )
    return -(-total // 1000) if meter.unit is Unit.COST else total


class Books:
    """A ledger whose clock the test sets."""

    def __init__(self, engine, folder) -> None:
        self.now = 0
        spool = Spool(folder / "writer", segment_bytes=1 << 20, carry=list)
        self.writer = LedgerWriter(engine, spool, interval=1)
        self.ledger = SpooledLedger(
            engine,
            folder / "spool",
            segment_bytes=4096,
            write_interval=0.01,
            clock=lambda: self.now / 1000,
        )


@pytest.fixture
async def books(engine, tmp_path):
    opened = Books(engine, tmp_path)
    yield opened
    await opened.ledger.stop()
    await opened.ledger.stop()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(happened, max_size=20),
    zone=st.sampled_from(ZONES),
    asked=st.lists(st.tuples(meters(), near), min_size=1, max_size=8),
    apart=st.sets(st.integers(0, 19)),
)
async def test_a_window_has_consumed_the_sum_of_its_events(engine, books, rows, zone, asked, apart):
    serial = next(_numbers)
    tenant = f"t{serial}"
    events = [event(serial * 100 + number, tenant, row) for number, row in enumerate(rows)]
    await books.writer._store(events[::2])
    assert await rezone(engine, tenant, zone)
    await books.writer._store(events)
    names = [event_id(serial * 100 + number) for number in sorted(apart)]
    for meter, books.now in asked:
        rest = [each for each in events if each.id not in names]
        assert await books.ledger.consumed(tenant, meter) == consumed(events, meter, books.now)
        found = await books.ledger.consumed(tenant, meter, names)
        assert found == consumed(rest, meter, books.now)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
async def test_a_month_of_the_tenants_zone_is_read_from_the_months_alone(engine, books, zone):
    await books.writer._store(
        [event(1, "acme", (APRIL + 2 * HOUR_MS, "chat", "m", None, "ann", 7))]
    )
    assert await rezone(engine, "acme", zone)
    books.now = APRIL + 2 * HOUR_MS
    asked: list[str] = []

    def note(connection, cursor, statement, *_) -> None:
        asked.append(statement)

    database_event.listen(engine.sync_engine, "before_cursor_execute", note)
    for window in (Window.MONTH, Window.TOTAL, Window.DAY, Window.HOUR):
        meter = Meter(
            key="c",
            capability="*",
            unit=Unit.IMAGES,
            window=window,
            limit=1,
            scale=1,
            scope="",
            time_zone=zone if window in (Window.DAY, Window.MONTH) else "UTC",
        )
        asked.clear()
        assert await books.ledger.consumed("acme", meter) == 7 * 7
        told = " ".join(asked)
        tables = ("monthly", "daily", "hourly", "nameless", "events")
        read = {name for name in tables if f"usage_{name}" in told}
        wanted = {Window.MONTH: "monthly", Window.TOTAL: "monthly", Window.DAY: "daily"}
        assert read == {wanted.get(window, "nameless")}
