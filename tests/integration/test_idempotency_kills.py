"""A gateway is killed over REST with keys in its hands: what was answered is answered again,
what was not runs once more when its lease has ended, and the ledger says both."""

import asyncio
from pathlib import Path

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.database import open_engine
from atrium_gateway.usage.recovery import scan
from tests.kit.stack import GatewayProcess, Stack, running_stack
from tests.kit.tenancy import Row, events_of, make_tenant

CHAT = "/v1/chat/completions"
QUICK = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello there"}]}
SLOW = {**QUICK, "model": "fake-slow", "max_tokens": 450}
"""Takes a second and a half."""
_WAIT_SECONDS = 30.0


async def test_a_killed_gateway_loses_no_answer_and_runs_nothing_twice(tmp_path: Path) -> None:
    """Two gateways over Redis and PostgreSQL; the one that dies comes back."""
    with running_stack(tmp_path, replicas=2, postgres=True, redis=True) as stack:
        key = make_tenant(stack.environments[0], "acme")
        engine = open_engine(stack.database_url)
        headers = {"authorization": f"Bearer {key}"}
        try:
            async with httpx.AsyncClient(headers=headers, timeout=_WAIT_SECONDS) as client:
                await _play(stack, client, engine)
        finally:
            await engine.dispose()


async def _play(stack: Stack, client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    victim, other = stack.gateways
    answered = await _ask(client, victim, "answered", QUICK)
    assert answered.status_code == 200
    dying = asyncio.ensure_future(_ask(client, victim, "cut", SLOW))
    await _admitted(stack.spools[0])
    victim.kill()
    with pytest.raises(httpx.TransportError):
        await dying
    # The dead one's lease holds, then exactly one of the repeats runs.
    assert (await _ask(client, other, "cut", SLOW)).status_code == 409
    ran = await asyncio.gather(*(_insist(client, other) for _ in range(3)))
    assert [end.status_code for end in ran] == [200] * 3
    assert [end.headers.get("idempotency-replayed") for end in ran].count(None) == 1
    assert len({end.content for end in ran}) == 1
    victim.start()
    for gateway in stack.gateways:
        for name, body, before in (("answered", QUICK, answered), ("cut", SLOW, ran[0])):
            again = await _ask(client, gateway, name, body)
            assert again.headers["idempotency-replayed"] == "true"
            assert (again.status_code, again.content) == (200, before.content)
    found = sorted((row["model"], row["outcome"]) for row in await _booked(engine, count=3))
    assert found[:2] == [("fake-chat", "completed"), ("fake-slow", "completed")]
    # Whoever finds what the dead one left behind: the other gateway, or itself at its start.
    assert found[2:] in ([("fake-slow", "expired")], [("fake-slow", "orphaned")])


async def _ask(
    client: httpx.AsyncClient, gateway: GatewayProcess, name: str, body: object
) -> httpx.Response:
    return await client.post(gateway.url + CHAT, json=body, headers={"idempotency-key": name})


async def _insist(client: httpx.AsyncClient, gateway: GatewayProcess) -> httpx.Response:
    """Repeats the cut request as a client does, until it is answered."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while True:
            answer = await _ask(client, gateway, "cut", SLOW)
            if answer.status_code != 409:
                return answer
            await asyncio.sleep(0.1)


async def _admitted(spool: Path) -> None:
    """Returns when the slow request's reservation is on disk: its key has been taken before."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while not any(record.model == "fake-slow" for record in scan(spool).open):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)


async def _booked(engine: AsyncEngine, *, count: int) -> list[Row]:
    """The ledger once it has so many events."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while len(rows := await events_of(engine, "acme")) < count:  # noqa: ASYNC110 - a database
            await asyncio.sleep(0.1)
    return rows
