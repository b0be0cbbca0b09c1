"""A deletion whose process was killed is ended by whichever gateway finds it, and by one alone."""

import asyncio
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from atrium_common.errors import Conflict
from atrium_gateway.administration.deletion import Step, TenantDeletion
from atrium_gateway.administration.exclusive import deleting_alone
from atrium_gateway.administration.keeper import end_deletions, keeping_order, remove_exports
from atrium_gateway.audit.domain import Actor
from atrium_gateway.audit.log import AuditFilter
from atrium_gateway.idempotency.tables import idempotency_keys
from atrium_gateway.tenants.tables import tenant_deletions
from atrium_gateway.usage.records import Units, UsageEvent
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.tables import (
    usage_daily,
    usage_events,
    usage_hourly,
    usage_monthly,
    usage_nameless,
)
from atrium_gateway.usage.writer import LedgerWriter

VICTIM = Path(__file__).with_name("deletion_victim.py")
ADA = Actor(subject="ada")
MONTH = timedelta(days=30)
TABLES = (usage_events, usage_hourly, usage_nameless, usage_daily, usage_monthly)


@pytest.fixture
async def peopled(desk, new_tenant, new_key, tmp_path):
    """A tenant with a key, an answer that is kept, and a few requests."""
    await desk.tenants(ADA, scope=None).create_tenant(new_tenant("acme"))
    key, _ = new_key("acme")
    await desk.tenants(ADA, scope=None).create_key(key)
    spool = Spool(tmp_path / "spool", segment_bytes=1, carry=list)
    events = [
        UsageEvent(
            f"e{n}",
            "acme",
            f"u{n % 2}",
            "chat",
            "m",
            "x",
            "r",
            n,
            n,
            "completed",
            Units(n),
            Units(n),
        )
        for n in range(9)
    ]
    await LedgerWriter(desk.engine, spool, interval=1)._store(events)
    await spool.close()
    async with desk.engine.begin() as connection:
        answer = {name: "" for name in ("attempt", "request_id", "state")}
        await connection.execute(
            idempotency_keys.insert().values(
                tenant="acme", digest=bytes(32), fingerprint=bytes(32), until_ms=0, size=0, **answer
            )
        )
    return desk


async def killed(desk, moment):
    url = desk.engine.url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(VICTIM), url, str(desk.exports), moment
    )
    assert await process.wait() == -signal.SIGKILL


async def step_of(desk):
    async with desk.engine.connect() as connection:
        return await connection.scalar(select(tenant_deletions.c.step))


async def ended(desk):
    async with asyncio.timeout(20):
        while await step_of(desk) != Step.REMOVED:  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.02)


async def count(desk, table, tenant):
    query = select(func.count()).select_from(table).where(table.c.tenant == tenant)
    async with desk.engine.connect() as connection:
        return await connection.scalar(query)


@pytest.mark.parametrize(
    "moment", ["before exported", "after voices", "within ledger", "before removed"]
)
async def test_a_killed_deletion_goes_on_when_gateways_start(peopled, moment):
    await killed(peopled, moment)
    assert await step_of(peopled) != Step.REMOVED
    async with (
        keeping_order(peopled, voices=None, exports_kept=MONTH),
        keeping_order(peopled, voices=None, exports_kept=MONTH),
    ):
        await ended(peopled)
    alias = (await TenantDeletion(peopled, by=ADA, voices=None).delete("acme")).alias
    for table in TABLES:
        assert await count(peopled, table, "acme") == 0
        query = select(func.sum(table.c.input_tokens)).where(table.c.tenant == alias)
        async with peopled.engine.connect() as connection:
            assert await connection.scalar(query) == sum(range(9))
    assert await count(peopled, idempotency_keys, "acme") == 0
    assert await peopled.tenants(ADA, scope=None).tenant("acme") is None
    entries = await peopled.log(scope=None).entries(AuditFilter(tenant="acme"), limit=9)
    last = [(entry.action, entry.by.subject) for entry in entries[:2]]
    assert last == [("tenant.deleted", "gateway"), ("tenant.delete", "ada")]
    assert len(list(peopled.exports.glob("acme-*.jsonl"))) == 1
    assert list(peopled.exports.glob("*.draft")) == []


async def test_one_process_at_a_time_deletes_a_tenant(peopled):
    async with deleting_alone(peopled.engine, peopled.exports, "acme"):
        with pytest.raises(Conflict, match="being deleted"):
            await TenantDeletion(peopled, by=ADA, voices=None).delete("acme")
        async with deleting_alone(peopled.engine, peopled.exports, "other"):
            pass
        await end_deletions(peopled, voices=None)
    assert (await TenantDeletion(peopled, by=ADA, voices=None).delete("acme")).step is Step.REMOVED


def test_exports_go_when_they_are_old(tmp_path):
    now = time.time()
    for name, age in (("a.jsonl", 100), ("b.jsonl", 10), ("c.draft", 100), ("d.lock", 100)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    assert remove_exports(tmp_path, now - 50) == 2
    assert {file.name for file in tmp_path.iterdir()} == {"b.jsonl", "d.lock"}
    assert remove_exports(tmp_path / "none", now) == 0
