"""A tenant is deleted whole, its ledger stays without a name, and a crash delays it only."""

import json
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import func, insert, select

from atrium_common.errors import Conflict, InvalidArgument, NotFound, Unavailable
from atrium_gateway.administration.deletion import Step, TenantDeletion
from atrium_gateway.audit.domain import Actor
from atrium_gateway.audit.log import AuditFilter
from atrium_gateway.database import metadata
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.usage.records import Units, UsageEvent
from atrium_gateway.usage.spool import Spool
from atrium_gateway.usage.tables import usage_events, usage_hourly
from atrium_gateway.usage.writer import LedgerWriter

ADA = Actor(subject="ada", tenant="house")
COUNTS = ("requests", "input_tokens", "cost_nano")


@dataclass(frozen=True)
class Voice:
    id: str
    cloned: bool


class FakeVoices:
    """A tts service with voices of everyone's and of each tenant."""

    def __init__(self) -> None:
        self.own = {"acme": ["a1", "a2"], "other": ["o1"]}
        self.away = False

    async def voices(self, *, model, language, tenant, request_id):
        if self.away:
            raise Unavailable("away")
        return [Voice("built-in", False), *(Voice(name, True) for name in self.own[tenant])]

    async def delete_voice(self, voice, *, tenant, request_id):
        self.own[tenant].remove(voice)


class Crash(Exception):
    """The process dies."""


class Crashing(TenantDeletion):
    """Dies right after a step, or right before it is noted."""

    at = None
    noted = True

    async def _done(self, deletion, step):
        if step is self.at and not self.noted:
            raise Crash
        await super()._done(deletion, step)
        if step is self.at:
            raise Crash


def row(table, **values):
    """A row with nothing in it but `values`."""
    empty = {"String": "", "Text": "{}", "Boolean": False}
    return {
        column.name: values.get(
            column.name, None if column.nullable else empty.get(type(column.type).__name__, 0)
        )
        for column in table.columns
    }


@pytest.fixture
async def two(desk, new_tenant, new_key):
    """Two tenants with all that tenants have."""
    everyone = desk.tenants(ADA, scope=None)
    for name in ("acme", "other"):
        await everyone.create_tenant(new_tenant(name))
        await everyone.set_limit(name, Limit("*", Unit.REQUESTS, Window.DAY, 7))
        key, _ = new_key(name)
        await everyone.create_key(key)
        await everyone.set_limit(
            name, Limit("chat", Unit.TOKENS, Window.DAY, 9), subject=f"key:{key.id}"
        )
        events, hours = [], []
        for number in range(5):
            counts = {"requests": 1, "input_tokens": number, "cost_nano": 10**number}
            who = {"tenant": name, "subject": f"user-{number % 2}", "key_id": key.id}
            named = {**counts, **who, "capability": "chat", "model": "m", "outcome": "completed"}
            events.append(row(usage_events, id=f"{name}-{number}", started_ms=number, **named))
            hours.append(row(usage_hourly, hour=number // 3, events=1, **named))
        merged = {(each["hour"], each["subject"]): each for each in hours}
        async with desk.engine.begin() as connection:
            await connection.execute(insert(usage_events), events)
            await connection.execute(insert(usage_hourly), list(merged.values()))
    return desk


async def sums(desk, table, tenant=None):
    query = select(*(func.sum(table.c[name]) for name in COUNTS))
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    async with desk.engine.connect() as connection:
        return [int(value or 0) for value in (await connection.execute(query)).one()]


async def rows_naming(desk, tenant):
    """Rows of every table but those that remember it on purpose."""
    kept = {"audit_entries", "tenant_deletions", "ledger_tenants"}
    found = {}
    async with desk.engine.connect() as connection:
        for name, table in metadata.tables.items():
            column = table.c.get("id" if name == "tenants" else "tenant")
            if column is not None and name not in kept:
                query = select(func.count()).select_from(table).where(column == tenant)
                found[name] = await connection.scalar(query)
    return {name: count for name, count in found.items() if count}


async def test_nothing_is_left_but_anonymous_sums(two):
    voices = FakeVoices()
    before = [await sums(two, table) for table in (usage_events, usage_hourly)]
    others = await rows_naming(two, "other")
    done = await TenantDeletion(two, by=ADA, voices=voices).delete("acme")
    assert (done.step, done.finished_at) == (Step.REMOVED, two.now())
    assert await rows_naming(two, "acme") == {}
    assert await rows_naming(two, "other") == others
    assert voices.own == {"acme": [], "other": ["o1"]}
    assert [await sums(two, table) for table in (usage_events, usage_hourly)] == before
    assert await sums(two, usage_events, done.alias) == [5, 10, 11111]
    async with two.engine.connect() as connection:
        mine = select(usage_events).where(usage_events.c.tenant == done.alias)
        for event in await connection.execute(mine):
            assert (event.subject, event.key_id, event.request_id) == ("deleted", None, "")
    entries = await two.log(scope=None).entries(AuditFilter(tenant="acme"), limit=2)
    assert [entry.action for entry in entries] == ["tenant.deleted", "tenant.delete"]
    with pytest.raises(Conflict, match="stays taken"):
        await two.tenants(ADA, scope=None).create_tenant(
            replace((await two.tenants(ADA, scope=None).list_tenants())[0], id="acme")
        )
    with pytest.raises(NotFound):
        await TenantDeletion(two, by=ADA, voices=None).delete("never-was")


async def test_the_export_has_everything_but_secrets(two):
    deletion = TenantDeletion(two, by=ADA, voices=None)
    file = deletion.file(await deletion.delete("acme"))
    assert file.stat().st_mode & 0o077 == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["kind"] for line in lines] == [
        "tenant",
        "key",
        "limit",
        "limit",
        *["usage_event"] * 5,
    ]
    assert lines[0]["name"] == "Acme"
    assert {line["tenant"] for line in lines[4:]} == {"acme"}
    assert "digest" not in str(lines[1])


@pytest.mark.parametrize("step", [Step.EXPORTED, Step.VOICES])
@pytest.mark.parametrize("noted", [True, False])
async def test_a_crash_between_two_steps_delays_it_only(two, step, noted):
    voices = FakeVoices()
    dying = Crashing(two, by=ADA, voices=voices)
    dying.at, dying.noted = step, noted
    with pytest.raises(Crash):
        await dying.delete("acme")
    tenant = await two.tenants(ADA, scope=None).tenant("acme")
    assert tenant.blocked
    done = await TenantDeletion(two, by=ADA, voices=voices).delete("acme")
    assert done.step is Step.REMOVED
    assert await rows_naming(two, "acme") == {}
    assert voices.own["acme"] == []


async def test_without_the_tts_service_it_waits_and_what_came_late_is_made_anonymous(two):
    voices = FakeVoices()
    voices.away = True
    deletion = TenantDeletion(two, by=ADA, voices=voices)
    with pytest.raises(Unavailable):
        await deletion.delete("acme")
    voices.away = False
    done = await deletion.delete("acme")
    async with two.engine.begin() as connection:
        late = {"tenant": "acme", "requests": 1, "input_tokens": 1, "cost_nano": 1}
        await connection.execute(insert(usage_events), [row(usage_events, id="late", **late)])
        await connection.execute(
            insert(usage_hourly), [row(usage_hourly, capability="chat", model="m", **late)]
        )
    again = await deletion.delete("acme")
    assert (again.alias, again.finished_at) == (done.alias, done.finished_at)
    assert await rows_naming(two, "acme") == {}
    assert await sums(two, usage_events, done.alias) == [6, 11, 11112]


async def test_what_running_requests_end_with_later_comes_under_the_anonymous_name(two, tmp_path):
    done = await TenantDeletion(two, by=ADA, voices=None).delete("acme")
    tables = (usage_events, usage_hourly)
    before = [await sums(two, table, done.alias) for table in tables]
    spool = Spool(tmp_path / "spool", segment_bytes=1, carry=list)
    units = Units(9)
    late = UsageEvent(
        "late", "acme", "user-1", "chat", "m", "x", "r", 5, 7, "completed", units, units, key_id="k"
    )
    for _ in range(2):
        await LedgerWriter(two.engine, spool, interval=1)._store([late])
    assert await rows_naming(two, "acme") == {}
    after = [await sums(two, table, done.alias) for table in tables]
    assert after == [[requests + 1, tokens + 9, cost] for requests, tokens, cost in before]
    async with two.engine.connect() as connection:
        subjects = select(usage_events.c.subject, usage_events.c.key_id).distinct()
        rows = await connection.execute(subjects.where(usage_events.c.tenant == done.alias))
        assert [tuple(row) for row in rows] == [("deleted", None)]
    await spool.close()


_CATALOGUE = "models: [{id: m, service: llm, capabilities: [chat], engine: fake}]"


async def test_the_command_line_exports_and_deletes(tmp_path, monkeypatch, run_atrium):
    (tmp_path / "models.yaml").write_text(_CATALOGUE)
    monkeypatch.setenv("ATRIUM_GATEWAY_CATALOGUE", str(tmp_path / "models.yaml"))
    await run_atrium("tenant", "create", "acme")
    assert json.loads(await run_atrium("tenant", "export", "acme"))["kind"] == "tenant"
    with pytest.raises(InvalidArgument, match="--yes"):
        await run_atrium("tenant", "delete", "acme")
    done = json.loads(await run_atrium("tenant", "delete", "acme", "--yes", "--json"))
    assert done["tenant"] == "acme"
    assert "Acme" not in await run_atrium("tenant", "list")
    assert (tmp_path / "exports" / f"acme-{done['alias']}.jsonl").exists()
