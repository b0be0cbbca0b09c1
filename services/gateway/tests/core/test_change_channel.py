"""What is changed at one gateway holds at the others as soon as they hear of it.

The look at the database once a second is switched off here: only the message is left.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from atrium_common.domain import Usage
from atrium_common.errors import PermissionDenied, QuotaExceeded, Unauthenticated
from atrium_gateway.auth.keys import make_key
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import Core, open_core, open_tenants
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants import directory
from atrium_gateway.tenants.domain import ApiKey, Tenant
from atrium_gateway.testing.servers import RedisServer, redis_server

ACME = Principal(tenant="acme", subject="user")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def shared(settings: GatewaySettings, server: RedisServer) -> GatewaySettings:
    url = GatewaySettings(quota_redis_url=server.url).quota_redis_url
    return settings.model_copy(update={"quota_redis_url": url})


@pytest.fixture
async def gateways(shared, catalogue, monkeypatch) -> AsyncIterator[list[Core]]:
    monkeypatch.setattr(directory, "MAX_AGE_SECONDS", float("inf"))
    async with AsyncExitStack() as stack:
        cores = [
            await stack.enter_async_context(open_core(shared, catalogue=catalogue))
            for _ in range(2)
        ]
        await cores[0].tenants.create_tenant(tenant())
        await until(lambda: outcome(cores[1], ""), "TOKEN_MISSING")
        yield cores


def tenant() -> Tenant:
    return Tenant(
        id="acme",
        name="Acme",
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=(),
        created_at=datetime.now(UTC),
    )


async def new_key(core: Core, settings: GatewaySettings):
    made = make_key(settings.resolved_key_pepper())
    key = ApiKey(
        id=made.id,
        tenant="acme",
        name="",
        digest=made.digest,
        scopes=frozenset({"*"}),
        roles=frozenset(),
        created_at=datetime.now(UTC),
        expires_at=None,
        revoked_at=None,
    )
    await core.tenants.create_key(key)
    return made


async def outcome(core: Core, text: str) -> str:
    try:
        await core.authenticator.authenticate(text)
    except (Unauthenticated, PermissionDenied) as err:
        return err.reason
    return "in"


async def until(ask, wanted: str) -> None:
    async with asyncio.timeout(20):
        while await ask() != wanted:  # noqa: ASYNC110 - what others hear has no event here
            await asyncio.sleep(0.01)


async def test_a_key_that_one_gateway_revokes_is_refused_by_the_other(gateways, shared):
    first, second = gateways
    key = await new_key(first, shared)
    await until(lambda: outcome(second, key.text), "in")
    await first.tenants.revoke_key(key.id, now=datetime.now(UTC))
    assert await outcome(first, key.text) == "KEY_REVOKED"  # its own change holds at once
    await until(lambda: outcome(second, key.text), "KEY_REVOKED")


async def test_what_changed_while_redis_was_gone_holds_when_it_is_back(gateways, shared, server):
    first, second = gateways
    key, later = await new_key(first, shared), await new_key(first, shared)
    for each in (key, later):
        await until(lambda each=each: outcome(second, each.text), "in")
    server.kill()
    await first.tenants.revoke_key(key.id, now=datetime.now(UTC))
    assert await outcome(second, key.text) == "in"  # nobody could tell it
    server.start()
    await until(lambda: outcome(second, key.text), "KEY_REVOKED")
    await first.tenants.revoke_key(later.id, now=datetime.now(UTC))
    await until(lambda: outcome(second, later.text), "KEY_REVOKED")


async def test_a_command_tells_running_gateways_of_a_limit_and_of_a_block(gateways, shared):
    async def asked() -> str:
        try:
            made = await gateways[0].admission.admit(
                ACME,
                capability="chat",
                model="m",
                estimate=Usage(),
                request_id="r",
                method="m",
            )
        except (QuotaExceeded, PermissionDenied) as err:
            return err.reason
        await gateways[0].admission.refund(made.id, "ASKED")
        return "in"

    assert await asked() == "in"
    async with open_tenants(shared) as (tenants, _):
        await tenants.set_limit("acme", Limit("chat", Unit.REQUESTS, Window.TOTAL, 0))
    await until(asked, "QUOTA_EXHAUSTED")
    async with open_tenants(shared) as (tenants, _):
        await tenants.set_blocked("acme", blocked=True)
    await until(asked, "TENANT_BLOCKED")


async def test_alone_a_gateway_knows_of_its_own_changes_at_once(settings, catalogue, monkeypatch):
    monkeypatch.setattr(directory, "MAX_AGE_SECONDS", float("inf"))
    async with open_core(settings, catalogue=catalogue) as core:
        await core.tenants.create_tenant(tenant())
        key = await new_key(core, settings)
        assert await outcome(core, key.text) == "in"
        await core.tenants.revoke_key(key.id, now=datetime.now(UTC))
        assert await outcome(core, key.text) == "KEY_REVOKED"
