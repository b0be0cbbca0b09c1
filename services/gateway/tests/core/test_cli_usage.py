"""`atrium usage` tells what the API tells: the same groups, filters and times."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from atrium_common.errors import AtriumError, InvalidArgument
from atrium_gateway.cli.app import app
from atrium_gateway.core import open_core
from atrium_gateway.usage.records import Units, UsageEvent
from atrium_gateway.usage.reports_calendar import unix_ms

NOON = datetime(2026, 3, 14, 12, 30, tzinfo=UTC)


@pytest.fixture
async def atrium(settings, catalogue, monkeypatch):
    """Runs `atrium usage` over a tenant with three events, in a thread of its own."""
    monkeypatch.setenv("ATRIUM_STATE_DIR", str(settings.state_dir))

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    await run("tenant", "create", "acme")
    async with open_core(settings, catalogue=catalogue) as core:
        await core.ledger._writer._store(
            [
                UsageEvent(
                    id=str(number),
                    tenant="acme",
                    subject=user,
                    capability="chat",
                    model="m",
                    method="m",
                    request_id="r",
                    started_ms=unix_ms(NOON + timedelta(hours=number)),
                    ended_ms=unix_ms(NOON),
                    outcome="completed",
                    units=Units(number),
                    reserved=Units(),
                    cost_nano=7000,
                )
                for number, user in enumerate(("anna", "=bert", "anna"))
            ]
        )
    return run


PERIOD = ("--start", "2026-03-14T12:30:00Z", "--end", "2026-03-15T00:00:00Z")


async def test_usage_is_split_narrowed_and_told_in_every_form(atrium):
    rows = json.loads(await atrium("usage", "acme", *PERIOD, "--by", "user", "--json"))
    assert [(row["user"], row["requests"]) for row in rows] == [("=bert", 1), ("anna", 2)]
    options = ("--bucket-width", "1h", "--group-by", "status", "--user", "anna", "--csv")
    text = await atrium("usage", "acme", *PERIOD, *options)
    hours = list(csv.DictReader(io.StringIO(text)))
    assert [(row["start"][11:16], row["status"], row["input_tokens"]) for row in hours] == [
        ("12:00", "completed", "0"),
        ("14:00", "completed", "2"),
    ]
    limited = await atrium("usage", "acme", *PERIOD, "--by", "user", "--limit", "1", "--csv")
    assert "'=bert" in limited
    assert "anna" not in limited
    assert "No usage." in await atrium("usage", "acme")


async def test_a_statement_bills_the_month(atrium):
    (row,) = json.loads(await atrium("usage", "statement", "acme", "--month", "2026-03", "--json"))
    assert (row["model"], row["unit"], row["count"], row["amount"]) == (
        "m",
        "request",
        3,
        "0.000021",
    )
    text = await atrium("usage", "statement", "acme", "--month", "2026-03", "--csv")
    (same,) = csv.DictReader(io.StringIO(text))
    assert (same["count"], same["unit_price"], same["amount"]) == ("3", "", "0.000021")
    assert "sum: 0" in await atrium("usage", "statement", "acme", "--month", "2026-04")
    for wrong in ("march", "2026-13", "2026-1"):
        with pytest.raises(InvalidArgument, match="no month"):
            await atrium("usage", "statement", "acme", "--month", wrong)


async def test_what_can_not_be_is_told_by_name(atrium):
    for wrong in (
        ("--json", "--csv"),
        ("--start", "yesterday"),
        ("--start", "2026-03-14T12:30:00Z", "--end", "2026-03-14T12:30:00Z"),
        ("--start", "2026-03-14T12:30:00Z", "--bucket-width", "1m"),
    ):
        with pytest.raises(AtriumError) as caught:
            await atrium("usage", "acme", *wrong)
        assert isinstance(caught.value, InvalidArgument)
