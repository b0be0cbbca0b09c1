"""The `atrium` command, run as operators run it, beside a running gateway."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atrium_common.domain import Usage
from atrium_common.errors import (
    AtriumError,
    Conflict,
    InvalidArgument,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
)
from atrium_gateway.admission import Outcome
from atrium_gateway.cli.app import app
from atrium_gateway.core import open_core

CLI = (sys.executable, "-m", "atrium_gateway.cli")


@pytest.fixture
def atrium(tmp_path: Path, monkeypatch):
    """Runs a command in a thread, for it brings an event loop of its own."""
    monkeypatch.setenv("ATRIUM_STATE_DIR", str(tmp_path))

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout.strip()

    return run


async def test_an_operator_makes_a_tenant_limits_it_and_takes_its_key_away(
    atrium, settings, catalogue
):
    async with open_core(settings, catalogue=catalogue) as core:

        async def call(credential: str) -> None:
            principal = await core.authenticator.authenticate(credential)
            reservation = await core.admission.admit(
                principal,
                capability="chat",
                model="m",
                estimate=Usage(),
                request_id="r",
                method="m",
            )
            await core.admission.settle(reservation.id, Usage(), Outcome.COMPLETED)

        async def refused_within_a_second(credential: str, error: type[AtriumError]) -> None:
            await asyncio.sleep(1.0)
            with pytest.raises(error):
                await call(credential)

        await atrium("tenant", "create", "acme", "--name", "Acme Ltd")
        made = json.loads(await atrium("key", "create", "acme", "--json"))
        await call(made["key"])
        await atrium("tenant", "limit", "acme", "--capability", "chat", "--amount", "1")
        await refused_within_a_second(made["key"], QuotaExceeded)
        await atrium("tenant", "limit", "acme", "--capability", "chat", "--amount", "none")
        await asyncio.sleep(1.0)
        await call(made["key"])
        await call(await atrium("token", "create", "acme"))
        await atrium("key", "revoke", made["id"])
        await refused_within_a_second(made["key"], Unauthenticated)
        await core.ledger.flush()
        (row,) = json.loads(await atrium("usage", "acme", "--json"))
        assert (row["capability"], row["model"], row["requests"]) == ("chat", "m", 3)
        (kept,) = json.loads(await atrium("key", "list", "acme", "--json"))
        assert kept["revoked_at"]
        assert made["key"] not in json.dumps(kept)


async def test_a_key_is_the_only_thing_on_stdout(atrium):
    await atrium("tenant", "create", "dev", "--unlimited")
    await atrium("tenant", "create", "dev", "--unlimited", "--exist-ok")
    key = await atrium("key", "create", "dev")
    assert key.startswith("atr_")
    assert len(key.splitlines()) == 1


async def test_a_key_may_bring_its_tenant_and_leaves_one_that_exists(atrium):
    assert (await atrium("key", "create", "dev", "--unlimited-tenant")).startswith("atr_")
    assert json.loads(await atrium("tenant", "show", "dev", "--json"))["unlimited"] is True
    await atrium("tenant", "create", "acme")
    await atrium("key", "create", "acme", "--unlimited-tenant")
    assert json.loads(await atrium("tenant", "show", "acme", "--json"))["unlimited"] is False


async def test_mistakes_are_told_by_name(atrium):
    with pytest.raises(NotFound, match="'nobody' does not exist"):
        await atrium("key", "create", "nobody")
    with pytest.raises(InvalidArgument, match="no tenant id"):
        await atrium("tenant", "create", "A b")
    await atrium("tenant", "create", "acme")
    with pytest.raises(Conflict, match="exists already"):
        await atrium("tenant", "create", "acme")
    for wrong in ("x", "-1", "1.5", "9" * 30):
        with pytest.raises(InvalidArgument, match="no amount"):
            await atrium("tenant", "limit", "acme", "--amount", wrong)
    with pytest.raises(InvalidArgument, match="no capability"):
        await atrium("tenant", "limit", "acme", "--amount", "1", "--capability", "chess")
    with pytest.raises(NotFound, match="no such limit"):
        await atrium("tenant", "limit", "acme", "--amount", "default")


def test_on_the_command_line_an_error_is_one_line_and_status_1(tmp_path):
    done = subprocess.run(
        [*CLI, "key", "create", "nobody"],
        env={**os.environ, "ATRIUM_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "atrium: The tenant 'nobody' does not exist.\n"


def test_what_is_logged_is_not_mixed_with_what_is_printed(tmp_path):
    away = {"ATRIUM_STATE_DIR": str(tmp_path), "ATRIUM_QUOTA_REDIS_URL": "redis://127.0.0.1:1"}
    done = subprocess.run(
        [*CLI, "tenant", "create", "acme", "--json"],
        env={**os.environ, **away},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["id"] == "acme"
    assert "change_not_announced" in done.stderr
