"""The gateway takes what a real OIDC issuer signs: oidc-provider, over its own HTTP."""

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from atrium_common.errors import PermissionDenied, Unauthenticated, Unavailable
from atrium_gateway.auth.documents import DocumentFetcher
from atrium_gateway.auth.issuer_rules import IssuerRules
from atrium_gateway.auth.issuers import TokenIssuers

PROVIDER = Path(__file__).parent / "provider"
NODE = PROVIDER / "node_modules" / ".bin" / "node"


@asynccontextmanager
async def provider(port: int, keys: str) -> AsyncIterator[None]:
    """Runs the issuer; `scripts/test_tools.sh` has installed it."""
    process = await asyncio.create_subprocess_exec(
        *(NODE, "issuer.mjs", str(port), keys),
        cwd=PROVIDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"listening\n"
        yield
    finally:
        process.kill()
        await process.communicate()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def token(port: int, client: str = "acme", **more: str) -> str:
    """What a backend of a tenant gets by its client credentials."""
    form = {
        "grant_type": "client_credentials",
        "scope": "chat usage:read",
        "resource": "urn:atrium",
        "client_id": f"{client}-backend",
        "client_secret": "a-secret-of-the-test",
        **more,
    }
    async with httpx.AsyncClient(timeout=20) as http:
        reply = await http.post(f"http://127.0.0.1:{port}/token", data=form)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["access_token"])


async def test_tokens_of_a_real_issuer_hold_and_its_rotation_is_followed(port, clock):
    clock.now = time.time()
    rules = IssuerRules(issuer=f"http://127.0.0.1:{port}", audience="atrium", tenants=("acme",))
    issuers = TokenIssuers([rules], fetch=DocumentFetcher(), clock=time.time, monotonic=clock)
    async with provider(port, "RS256:one,ES256:two"):
        rsa = await token(port)
        for text in (rsa, await token(port, algorithm="ES256")):
            assert issuers.knows(text)
            principal = await issuers.check(text)
            assert (principal.tenant, principal.subject) == ("acme", "acme-backend")
            assert (principal.roles, principal.scopes) == ({"developer"}, {"chat", "usage:read"})
        with pytest.raises(PermissionDenied):
            await issuers.check(await token(port, client="globex"))
        with pytest.raises(Unauthenticated):
            await issuers.check(await token(port, resource="urn:another"))
    # Away: what is known holds; what is not can't be told from a forgery.
    clock.now += 400
    assert await issuers.check(rsa)
    async with provider(port, "RS256:three,ES256:two"):
        rotated = await token(port)
        clock.now += 10
        assert await issuers.check(rotated)
        with pytest.raises(Unauthenticated):
            await issuers.check(rsa)
    clock.now += 10
    head = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"four","typ":"at+jwt"}').rstrip(b"=")
    with pytest.raises(Unavailable):
        await issuers.check(head.decode() + rotated[rotated.index(".") :])
    await issuers.close()
