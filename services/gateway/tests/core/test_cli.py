"""The `atrium` command, run as operators run it, beside a running gateway."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, QuotaExceeded, Unauthenticated
from atrium_gateway.admission import Outcome
from atrium_gateway.core import open_core

CLI = (sys.executable, "-m", "atrium_gateway.cli")


@pytest.fixture
def atrium(tmp_path: Path):
    async def run(*arguments: str, status: int = 0) -> str:
        process = await asyncio.create_subprocess_exec(
            *CLI,
            *arguments,
            env={**os.environ, "ATRIUM_STATE_DIR": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == status, err.decode()
        assert "Traceback" not in err.decode()
        return (out if status == 0 else err).decode().strip()

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


async def test_mistakes_are_one_clear_line(atrium):
    assert "'nobody' does not exist" in await atrium("key", "create", "nobody", status=1)
    await atrium("tenant", "create", "acme")
    assert "exists already" in await atrium("tenant", "create", "acme", status=1)
    assert "no tenant id" in await atrium("tenant", "create", "A b", status=1)
    assert "no amount" in await atrium("tenant", "limit", "acme", "--amount", "x", status=1)
