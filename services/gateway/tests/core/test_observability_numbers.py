"""What the gateway's numbers say: decisions, budgets without tenants' names, the ledger's lag."""

from datetime import UTC, datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy.exc import OperationalError

from atrium_common.errors import PermissionDenied, QuotaExceeded, Unavailable
from atrium_gateway.middleware.http_metrics import HttpMetrics
from atrium_gateway.observability.budgets import SHARES, Budgets
from atrium_gateway.observability.decisions import Decisions
from atrium_gateway.quota.limits import Limit, LimitState, Unit, Window

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def shown(*collectors) -> str:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry).decode()


def state(left: int, *, name: str = "tenant:*:cost:month", limit: int = 100, ends: int = 9):
    day = timedelta(days=1)
    return LimitState(name.split(":")[2], 30 * day, limit, left, NOW + ends * day, name)


def over(text: str, used: str, unit: str = "cost", window: str = "month") -> float:
    name = f'atrium_budget_tenants{{unit="{unit}",used="{used}",window="{window}"}} '
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_tenants_are_counted_by_the_share_that_they_used(left: list[int]) -> None:
    budgets = Budgets(now=lambda: NOW)
    for number, each in enumerate(left):
        budgets.note(f"tenant-{number}", "chat", "m", [state(each)])
    text = shown(budgets)
    for share in SHARES:
        assert over(text, f"{share:g}") == sum(1 - each / 100 >= share for each in left)
    assert "tenant-" not in text


def test_a_tenant_counts_once_with_its_fullest_limit() -> None:
    budgets = Budgets(now=lambda: NOW)
    budgets.note("acme", "chat", "m", [state(90), state(10, name="key:chat:cost:month")])
    budgets.note("acme", "speech", "n", [state(40)])
    text = shown(budgets)
    assert [over(text, f"{share:g}") for share in SHARES] == [1, 1, 0, 0]


def test_minutes_and_windows_that_ended_are_no_budgets() -> None:
    budgets = Budgets(now=lambda: NOW)
    budgets.note("acme", "chat", "m", [state(0, name="tenant:*:requests:minute"), state(0, ends=0)])
    assert "atrium_budget_tenants{" not in shown(budgets)


def test_the_log_names_who_crossed_a_share_once() -> None:
    budgets = Budgets(now=lambda: NOW)
    with structlog.testing.capture_logs() as told:
        for left in (60, 15, 12, 40, 3):
            budgets.note("acme", "chat", "m", [state(left)])
            shown(budgets)
    assert [(each["tenant"], each["limit"], each["share"]) for each in told] == [
        ("acme", "tenant:*:cost:month", 0.8),
        ("acme", "tenant:*:cost:month", 0.95),
    ]


def test_what_is_remembered_of_tenants_has_a_bound() -> None:
    budgets = Budgets(now=lambda: NOW)
    for number in range(10_001):
        budgets.note(f"tenant-{number}", "chat", "m", [state(50)])
    assert over(shown(budgets), "0.5") == 10_000


@pytest.mark.parametrize(
    ("error", "labels"),
    [
        (PermissionDenied("blocked"), 'decision="denied",unit="",window=""'),
        (Unavailable("away"), 'decision="unavailable",unit="",window=""'),
    ],
    ids=["denied", "unavailable"],
)
def test_decisions_are_counted_by_what_they_were(error, labels) -> None:
    decisions = Decisions()
    decisions.refused(error)
    assert f"atrium_admissions_total{{{labels}}} 1.0" in shown(decisions)


async def test_a_refusal_is_counted_by_its_limit(core, make_tenant, admit) -> None:
    acme = await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.DAY, 1))
    await admit(acme)
    with pytest.raises(QuotaExceeded):
        await admit(acme)
    text = shown(core.admission.decisions, core.admission.budgets)
    counted = 'atrium_admissions_total{decision="refused",unit="requests",window="day"} 1.0'
    assert counted in text
    assert 'atrium_admissions_total{decision="admitted",unit="",window=""} 1.0' in text
    assert "atrium_admission_seconds_count 2.0" in text


async def test_the_lag_grows_while_the_database_is_away(core, make_tenant, admit, monkeypatch):
    writer = core.ledger._writer
    now = writer._clock() + 100
    monkeypatch.setattr(writer, "_clock", lambda: now)
    await core.ledger.flush()
    assert core.ledger.lag == 0

    async def refuse(events):
        raise OperationalError("insert", {}, Exception("away"))

    monkeypatch.setattr(writer, "_store", refuse)
    await admit(await make_tenant())
    await core.ledger.synced()
    now += 7
    assert core.ledger.lag == pytest.approx(7)
    assert core.ledger.spool.size() > 0
    monkeypatch.undo()
    await core.ledger.flush()
    assert core.ledger.lag == 0


def test_http_requests_are_counted_by_reason_and_first_byte() -> None:
    metrics = HttpMetrics(CollectorRegistry())
    metrics.count("/a", "POST", 200, 3.0, first_byte=0.5)
    metrics.count("/a", "POST", 429, 0.1, reason="RATE_LIMITED")
    metrics.count("unmatched", "BREW", 404, 0.1, reason="NOT_FOUND")
    text = shown(metrics)
    assert 'atrium_http_first_byte_seconds_sum{route="/a"} 0.5' in text
    assert 'atrium_http_first_byte_seconds_count{route="/a"} 1.0' in text
    assert 'atrium_http_errors_total{reason="RATE_LIMITED",route="/a"} 1.0' in text
    assert 'atrium_http_requests_total{method="OTHER",route="unmatched",status="404"} 1.0' in text
