"""Two gateway processes, one Redis, a running clock: admitted is what a simple model admits.

Redis itself tells in which order it did what, and at which times: the model repeats that.
"""

import asyncio
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from atrium_common.admission_client import AdmissionClient, Outcome, TenantCaller
from atrium_common.channels import open_channel
from atrium_common.domain import Capability, Usage
from atrium_common.errors import QuotaExceeded
from atrium_common.service import WorkEstimate
from atrium_gateway.core import open_tenants
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import Tenant
from atrium_gateway.testing.servers import RedisServer, redis_server

REQUESTS = 700
MINUTE_MS = 60_000
SECONDS = 2.5
"""Over which they come; the buckets drain in between."""
LIMITS = (
    Limit("chat", Unit.TOKENS, Window.MINUTE, 600),
    Limit("chat", Unit.REQUESTS, Window.MINUTE, 150),
    Limit("chat", Unit.REQUESTS, Window.CONCURRENT, 12),
    Limit("chat", Unit.TOKENS, Window.TOTAL, 1000),
)
_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
Told = list[bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@dataclass
class Bucket:
    """A minute: portions in the order in which they came; the oldest drain first."""

    limit: int
    seen: int
    portions: list[list] = field(default_factory=list)  # [id, amount]

    def drain(self, now: int) -> None:
        gone = Fraction(self.limit * max(0, now - self.seen), MINUTE_MS)
        self.seen = max(self.seen, now)
        while gone and self.portions:
            part = min(gone, self.portions[0][1])
            gone -= part
            self.portions[0][1] -= part
            if not self.portions[0][1]:
                self.portions.pop(0)

    def fits(self, amount: int) -> bool:
        # A unit that has begun to drain is still there, as it was with each one before.
        level = -(-sum((part for _, part in self.portions), Fraction(0)) // 1)
        return not amount or level + amount <= self.limit

    def take(self, key: str, amount: int) -> None:
        self.portions.append([key, Fraction(amount)])

    def settle(self, key: str, reserved: int, actual: int) -> None:
        back = Fraction(reserved - actual)
        for portion in self.portions:
            if portion[0] == key:
                portion[1] -= min(portion[1], back)
        self.portions = [portion for portion in self.portions if portion[1]]


@dataclass
class Total:
    """All time."""

    limit: int
    used: int = 0

    def drain(self, now: int) -> None:
        pass

    def fits(self, amount: int) -> bool:
        return not amount or self.used + amount <= self.limit

    def take(self, key: str, amount: int) -> None:
        self.used += amount

    def settle(self, key: str, reserved: int, actual: int) -> None:
        self.used += actual - reserved


@dataclass
class Slots:
    """What runs."""

    limit: int
    running: set[str] = field(default_factory=set)

    def drain(self, now: int) -> None:
        pass

    def fits(self, amount: int) -> bool:
        return not amount or len(self.running) < self.limit

    def take(self, key: str, amount: int) -> None:
        self.running.add(key)

    def settle(self, key: str, reserved: int, actual: int) -> None:
        self.running.discard(key)


class Model:
    """Repeats what Redis was asked."""

    def __init__(self) -> None:
        self.counters: list[Bucket | Total | Slots] = []
        self.held: dict[str, list[int]] = {}
        self.admitted: set[str] = set()
        self.seeded = False

    def __call__(self, told: Told) -> None:
        """Does an operation; `told` are the script's arguments."""
        operation, key = told[0], told[2].decode()
        now = int(told[1]) if told[1] else 0
        if operation == b"seed":
            self.seeded = True
        elif operation == b"reserve" and self.seeded:
            self._reserve(key, now, [told[at : at + 5] for at in range(5, len(told), 5)])
        elif operation in (b"settle", b"void") and key in self.held:
            actual = [int(amount) for amount in told[4:]] or [0] * len(self.counters)
            for counter, reserved, used in zip(
                self.counters, self.held.pop(key), actual, strict=True
            ):
                counter.drain(now)
                counter.settle(key, reserved, used)

    def _reserve(self, key: str, now: int, meters: Sequence[Told]) -> None:
        if not self.counters:
            self.counters = [
                Bucket(int(limit), now)
                if kind == b"b"
                else (Slots if kind == b"s" else Total)(int(limit))
                for kind, limit, *_ in meters
            ]
        amounts = [int(amount) for _, _, amount, *_ in meters]
        for counter in self.counters:
            counter.drain(now)
        pairs = list(zip(self.counters, amounts, strict=True))
        if all(counter.fits(amount) for counter, amount in pairs):
            for counter, amount in pairs:
                counter.take(key, amount)
            self.held[key] = amounts
            self.admitted.add(key)


@asynccontextmanager
async def watched(server: RedisServer) -> AsyncIterator[list[Told]]:
    """Everything that gateways ask of the script, in the order in which Redis does it."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    found: list[Told] = []

    async def read() -> None:
        async for line in reader:
            told = _ARGUMENT.findall(line)
            if told[0].lower() in (b"evalsha", b"eval"):
                found.append(told[3 + int(told[2]) :])

    task = asyncio.create_task(read())
    yield found
    writer.close()
    await writer.wait_closed()
    await task


@contextmanager
def gateway(folder: Path, url: str) -> Iterator[int]:
    """A gateway process; gives its port."""
    script = Path(__file__).with_name("replica_process.py")
    process = subprocess.Popen(
        [sys.executable, script, folder, url, "running"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield int(next(line for line in process.stdout if line.strip().isdigit()))
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def test_at_the_times_that_redis_saw_exactly_what_a_model_admits(server, tmp_path):
    chance = random.Random(7)  # noqa: S311 - to be repeated, not to be secret
    async with open_tenants(GatewaySettings(state_dir=tmp_path)) as (tenants, _):
        await tenants.create_tenant(
            Tenant(
                id="acme",
                name="",
                blocked=False,
                unlimited=False,
                weight=1.0,
                limits=LIMITS,
                created_at=datetime.now(UTC),
            )
        )
    with gateway(tmp_path, server.url) as one, gateway(tmp_path, server.url) as other:
        channels = [open_channel(f"127.0.0.1:{port}", tls=None) for port in (one, other)]
        clients = [
            AdmissionClient(
                channel, service_credential="a service credential", timeout=timedelta(minutes=1)
            )
            for channel in channels
        ]

        async def ask(number: int) -> str | None:
            admits, settles = clients[number % 2], clients[chance.randrange(2)]
            tokens = chance.randrange(1, 12)
            comes, works = chance.uniform(0, SECONDS), chance.uniform(0, 0.05)
            await asyncio.sleep(comes)
            work = WorkEstimate(
                capability=Capability.CHAT, model="m", usage=Usage(output_tokens=tokens)
            )
            try:
                grant = await admits.admit(
                    TenantCaller("acme"), work, request_id=str(number), method="/x/Y"
                )
            except QuotaExceeded:
                return None
            await asyncio.sleep(works)
            if chance.random() < 0.2:
                await settles.refund(grant.reservation_id, "INTERNAL", tenant="acme")
            else:
                used = Usage(output_tokens=chance.randrange(tokens + 1))
                await settles.settle(grant.reservation_id, used, Outcome.COMPLETED, tenant="acme")
            return grant.reservation_id

        async with watched(server) as told:
            granted = {key for key in await asyncio.gather(*map(ask, range(REQUESTS))) if key}
        for channel in channels:
            await channel.close(None)
    model = Model()
    for each in told:
        model(each)
    assert granted == model.admitted
    assert 0 < len(granted) < REQUESTS
    assert len(model.counters) == len(LIMITS)
