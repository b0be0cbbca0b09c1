"""What is asked of gateways that share a Redis, and what is found in their books."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from atrium_common.domain import Usage
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import Core
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.testing.servers import RedisServer

HOUR = timedelta(hours=1)
ACME = Principal(tenant="acme", subject="user")
AWAY = {"quota_timeout_seconds": 0.25}
"""For tests that wait for an answer in vain."""
TOKENS = Limit("chat", Unit.TOKENS, Window.MONTH, 1000)
SLOTS = Limit("chat", Unit.REQUESTS, Window.CONCURRENT, 2)


def tenant(*limits: Limit) -> Tenant:
    return Tenant(
        id="acme",
        name="acme",
        blocked=False,
        unlimited=False,
        weight=1.0,
        limits=limits,
        created_at=datetime.now(UTC),
    )


async def admit(core: Core, tokens: int = 100):
    return await core.admission.admit(
        ACME,
        capability="chat",
        model="m",
        estimate=Usage(input_tokens=tokens),
        request_id="r",
        method="m",
    )


async def settle(core: Core, reservation, tokens: int, *by_model: Usage) -> None:
    await core.admission.settle(
        reservation.id, Usage(input_tokens=tokens), Outcome.COMPLETED, by_model, tenant="acme"
    )


@contextmanager
def away(server: RedisServer) -> Iterator[None]:
    """Redis stands still: it keeps all, and nobody gets an answer."""
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


async def told(core: Core) -> bool:
    return not core.admission._books.shared.owed


async def events(*cores: Core):
    for core in cores:
        await core.ledger.flush()
    now = datetime.now(UTC)
    found = await cores[0].reports.events("acme", start=now - HOUR, end=now + HOUR)
    return sorted((event.outcome, event.totals.input_tokens) for event in found)


async def left(core: Core, unit: str = "tokens") -> int:
    """What a limit leaves, asked by a request that takes nothing of it."""
    reservation = await admit(core, 0)
    await core.admission.refund(reservation.id, "ASKED")
    return next(state.remaining for state in reservation.limits if state.unit == unit)


async def total(*cores: Core) -> int:
    return sum(tokens for outcome, tokens in await events(*cores) if outcome == "completed")


async def have(core: Core, count: int) -> bool:
    return core.admission.open_reservations == count


async def noticed(core: Core) -> bool:
    return core.admission._books.shared.returning


async def until(check, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
