"""`atrium plan` and limits of tenants, keys and users on the command line."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.cli.app import app
from atrium_gateway.quota import checks


@pytest.fixture
def atrium(tmp_path: Path, monkeypatch):
    """Runs a command in a thread, for it brings an event loop of its own; reads its JSON."""
    monkeypatch.setenv("ATRIUM_STATE_DIR", str(tmp_path))

    async def run(*arguments: str):
        done = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    return run


async def test_plans_ship_as_examples_and_can_be_made(atrium):
    shipped = {plan["id"]: plan["limits"] for plan in await atrium("plan", "list")}
    assert shipped == {
        "enterprise": [],
        "free": ["*: 10 requests/minute", "*: 100000 tokens/month"],
        "pro": ["*: 100 requests/minute", "*: 1000000 tokens/month"],
    }
    await atrium("plan", "set", "team", "--name", "Team")
    cost = ("--unit", "cost", "--window", "month")
    made = await atrium("plan", "limit", "team", *cost, "--amount", "12.5")
    assert made == {"id": "team", "name": "Team", "limits": ["*: 12.5 cost/month"]}
    await atrium("plan", "limit", "team", "--model", "m", "--amount", "60")
    await atrium("plan", "limit", "team", *cost, "--amount", "default")
    renamed = await atrium("plan", "set", "team", "--name", "The team")
    assert renamed["limits"] == ["model:m: 60 requests/minute"]
    assert await atrium("plan", "show", "team") == renamed


async def test_a_tenant_has_a_plan_a_time_zone_and_limits_of_its_own(atrium):
    await atrium("tenant", "create", "acme", "--plan", "free", "--time-zone", "Asia/Tokyo")
    key = await atrium("key", "create", "acme")
    limit = ("tenant", "limit", "acme", "--unit", "tokens", "--window", "day", "--amount")
    await atrium(*limit, "50", "--key", key["id"], "--capability", "chat")
    await atrium(*limit, "60", "--key", key["key"], "--model", "m")
    await atrium(*limit, "70", "--user", "ann@example.org")
    shown = await atrium(*limit, "80")
    assert shown["plan"] == "free"
    assert shown["time_zone"] == "Asia/Tokyo"
    assert shown["plan_limits"] == ["*: 10 requests/minute", "*: 100000 tokens/month"]
    assert shown["limits"] == [
        "*: 80 tokens/day",
        f"key:{key['id']} chat: 50 tokens/day",
        f"key:{key['id']} model:m: 60 tokens/day",
        "user:ann@example.org *: 70 tokens/day",
    ]
    left = await atrium(*limit, "default", "--user", "ann@example.org")
    assert len(left["limits"]) == 3
    assert (await atrium("tenant", "plan", "acme", "none"))["plan"] is None
    assert (await atrium("tenant", "plan", "acme", "pro"))["plan"] == "pro"
    moved = await atrium("tenant", "time-zone", "acme", "America/New_York")
    assert moved["time_zone"] == "America/New_York"
    assert (await atrium("tenant", "fallback", "acme", "refuse"))["fallback"] == "refuse"


async def test_mistakes_with_limits_are_told_by_name(atrium):
    await atrium("tenant", "create", "acme")
    for arguments, error, words in (
        (("tenant", "plan", "acme", "gold"), NotFound, "'gold' does not exist"),
        (("tenant", "create", "b", "--plan", "gold"), NotFound, "'gold' does not exist"),
        (("tenant", "time-zone", "acme", "Berlin"), InvalidArgument, "no time zone"),
        (("plan", "show", "gold"), NotFound, "'gold' does not exist"),
        (("plan", "set", "Go ld"), InvalidArgument, "no plan id"),
        (("plan", "limit", "gold", "--amount", "1"), NotFound, "'gold' does not exist"),
        (("plan", "limit", "free", "--amount", "none"), InvalidArgument, "state an amount"),
    ):
        with pytest.raises(error, match=words):
            await atrium(*arguments)
    limit = ("tenant", "limit", "acme", "--amount")
    for arguments, error, words in (
        (("1", "--key", "k", "--user", "u"), InvalidArgument, "--key or --user"),
        (("1", "--model", "m", "--capability", "chat"), InvalidArgument, "--capability or"),
        (("1", "--key", "nobody"), NotFound, "no such key"),
        (("1.5", "--unit", "tokens"), InvalidArgument, "no amount"),
        (("0.0000001", "--unit", "cost"), InvalidArgument, "no amount"),
        (("NaN", "--unit", "cost"), InvalidArgument, "no amount"),
        (("1e3", "--unit", "cost"), InvalidArgument, "no amount"),
        (("1", "--unit", "tokens", "--window", "concurrent"), InvalidArgument, "requests only"),
    ):
        with pytest.raises(error, match=words):
            await atrium(*limit, *arguments)


async def test_one_limit_too_many_is_refused(atrium, monkeypatch):
    monkeypatch.setattr(checks, "MOST_ALIKE", 1)
    await atrium("tenant", "create", "acme")
    limit = ("tenant", "limit", "acme", "--unit", "tokens", "--amount", "50", "--window")
    await atrium(*limit, "day")
    for subject in ((), ("--user", "ann")):
        await atrium(*limit, "day", *subject)
        with pytest.raises(InvalidArgument, match="may have 1 limits of one capability"):
            await atrium(*limit, "month", *subject)
