"""Where hours, days and months begin: in every time zone they follow each other without a gap."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_gateway.quota.counters import CalendarCounter, window_bounds
from atrium_gateway.quota.limits import Window

HOUR = 3_600_000
ZONES = sorted(available_timezones() - {"localtime", "Factory"})


def at(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1000


@given(
    st.sampled_from([Window.HOUR, Window.DAY, Window.MONTH]),
    st.integers(946_684_800_000, 2_208_988_800_000),  # 2000 to 2040
    st.sampled_from(ZONES),
)
def test_windows_follow_each_other_without_gap_or_overlap(window, now, zone):
    start, end = window_bounds(window, now, zone)
    assert start <= now < end
    assert window_bounds(window, start, zone) == (start, end)
    assert window_bounds(window, end - 1, zone) == (start, end)
    assert window_bounds(window, end, zone)[0] == end
    assert window_bounds(window, start - 1, zone)[1] == start


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-03-08", "America/New_York", 23),
        ("2026-11-01", "America/New_York", 25),
        ("2026-04-24", "Africa/Cairo", 23),  # the clocks skip midnight
        ("2026-11-01", "America/Havana", 25),  # midnight comes twice
        ("2026-10-04", "Australia/Lord_Howe", 23.5),
        ("2026-06-15", "Asia/Kathmandu", 24),
        ("2026-03-29", "UTC", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(day, zone, hours):
    start, end = window_bounds(Window.DAY, at(f"{day}T12:00", zone), zone)
    assert end - start == hours * HOUR
    local = datetime.fromtimestamp(start / 1000, ZoneInfo(zone))
    assert local.date().isoformat() == day


def test_a_month_begins_where_the_tenant_is():
    last_evening = int(datetime(2026, 12, 31, 15, 30, tzinfo=UTC).timestamp()) * 1000
    tokyo = window_bounds(Window.MONTH, last_evening, "Asia/Tokyo")
    assert tokyo == (at("2027-01-01T00:00", "Asia/Tokyo"), at("2027-02-01T00:00", "Asia/Tokyo"))
    utc = window_bounds(Window.MONTH, last_evening)
    assert utc == (at("2026-12-01T00:00", "UTC"), at("2027-01-01T00:00", "UTC"))


def test_a_counter_begins_anew_at_the_tenants_midnight():
    zone, eve = "America/New_York", at("2026-03-07T23:59:59", "America/New_York")
    counter = CalendarCounter(Window.DAY, eve, time_zone=zone)
    counter.read(eve, 10, 1)
    counter.take("a", 7, expires=eve)
    reading = counter.read(eve, 10, 1)
    assert (reading.used, reading.resets) == (7, eve + 1000)
    next_day = counter.read(eve + 1000, 10, 1)
    assert (next_day.used, next_day.resets - eve - 1000) == (0, 23 * HOUR)


def test_total_has_no_end_and_no_zone():
    assert window_bounds(Window.TOTAL, 5, "Asia/Tokyo") == window_bounds(Window.TOTAL, 5)
    far = datetime(9999, 1, 1, tzinfo=UTC) + timedelta(days=300)
    assert window_bounds(Window.TOTAL, 5)[1] > far.timestamp() * 1000
