"""What is taken away is refused by every gateway within a second, over either database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from atrium_common.errors import PermissionDenied, Unauthenticated
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.keys import make_key, renew_key
from atrium_gateway.auth.tokens import TokenAuthority, TokenClaims
from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.domain import ApiKey, Tenant
from atrium_gateway.tenants.repository import TenantRepository

NOON = datetime(2026, 3, 14, 12, 30, tzinfo=UTC)
PEPPER = b"pepper-pepper-pepper-pepper-pepp"
WITHIN = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "postgresql"])
async def gateways(request, tmp_path, clock) -> AsyncIterator[list]:
    """Two gateways' authenticators, each with its own connections, and a third's repository."""
    url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("real_postgres").new_database("revocation")
    async with AsyncExitStack() as stack:
        engines = [open_engine(url) for _ in range(3)]
        for engine in engines:
            stack.push_async_callback(engine.dispose)
        await upgrade(engines[0])
        tokens = TokenAuthority(secret=PEPPER, issuer="atrium", audience="atrium", clock=clock)
        yield [
            *(
                Authenticator(
                    directory=Directory(TenantRepository(engine), clock=clock),
                    tokens=tokens,
                    pepper=PEPPER,
                    clock=clock,
                )
                for engine in engines[:2]
            ),
            TenantRepository(engines[2]),
            tokens,
        ]


async def test_every_gateway_refuses_it_a_second_later(gateways, clock):
    *authenticators, tenants, tokens = gateways
    acme = Tenant(
        id="acme",
        name="Acme",
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=(),
        created_at=NOON,
    )
    await tenants.create_tenant(acme)
    revoked, rotated, other = (make_key(PEPPER) for _ in range(3))
    for made in (revoked, rotated, other):
        await tenants.create_key(_key(made))
    minted = tokens.mint(
        TokenClaims(tenant="acme", subject="ann", lifetime=timedelta(hours=1), key_id=revoked.id)
    )
    everything = (revoked.text, rotated.text, other.text, minted)

    async def outcomes() -> list[list[str]]:
        return [[await _outcome(one, text) for text in everything] for one in authenticators]

    assert await outcomes() == [["in"] * 4] * 2
    await tenants.revoke_key(revoked.id, now=NOON)
    second = renew_key(rotated.id, PEPPER)
    await tenants.rotate_key(rotated.id, digest=second.digest, now=NOON, grace=timedelta())
    clock.advance(WITHIN)
    assert await outcomes() == [["KEY_REVOKED", "KEY_ROTATED", "in", "KEY_REVOKED"]] * 2
    assert [await _outcome(one, second.text) for one in authenticators] == ["in"] * 2
    await tenants.set_blocked("acme", blocked=True)
    clock.advance(WITHIN)
    assert {outcome for each in await outcomes() for outcome in each} == {
        "KEY_REVOKED",
        "KEY_ROTATED",
        "TENANT_BLOCKED",
    }
    await tenants.set_blocked("acme", blocked=False)
    clock.advance(WITHIN)
    assert (await outcomes())[1][2] == "in"


async def _outcome(authenticator, text) -> str:
    try:
        await authenticator.authenticate(text)
    except (Unauthenticated, PermissionDenied) as err:
        return err.reason
    return "in"


def _key(made) -> ApiKey:
    return ApiKey(
        id=made.id,
        tenant="acme",
        name="",
        digest=made.digest,
        scopes=frozenset({"*"}),
        roles=frozenset(),
        created_at=NOON,
        expires_at=None,
        revoked_at=None,
    )
