"""One round: load at both doors, one part killed and started again, and the books afterwards.

`__main__.py` runs many of them (`make chaos`), `test_chaos.py` two.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.database import open_engine
from atrium_gateway.testing.servers import RedisServer
from atrium_gateway.usage.records import OpenRecord
from atrium_gateway.usage.recovery import scan
from tests.chaos.books import counted, problems
from tests.chaos.load import POSTS, SLOW, Callers
from tests.kit.stack import LEASE_SECONDS, Stack, running_stack, shares_quotas
from tests.kit.tenancy import Limits, events_of, hours_of, make_tenant

PLENTY = 1_000_000
"""Of a limit that is counted but never reached."""
SLOTS = 3
TIGHT = 25
_LIMITS: dict[str, Limits] = {
    "plenty": [("requests", "total", PLENTY), ("tokens", "day", PLENTY)],
    "slots": [("requests", "concurrent", SLOTS)],
    "tight": [("requests", "total", TIGHT)],
}
_REST_CALLERS = {"plenty": 5, "slots": 4, "tight": 2}
_DIRECT_CALLERS = {"plenty": 3, "slots": 1, "tight": 1}
_WARM = 40
"""Answers before the kill, and again after the killed part is back."""
_SERVED_SECONDS = 30.0
"""Longest wait for them."""
_BOOKS_SECONDS = LEASE_SECONDS + 20.0
"""Longest wait until the books hold: leases pass, the writer catches up."""


@dataclass(frozen=True)
class Victim:
    """A part that is killed.

    Attributes:
        name: For reports.
        kill: Ends it.
        start: Starts it; returns when it serves.
    """

    name: str
    kill: Callable[[], None]
    start: Callable[[], None]


class BooksBroken(AssertionError):
    """A promise did not hold; its text names the round's seed."""


@contextmanager
def alone(folder: Path) -> Iterator[Stack]:
    """One gateway, SQLite, quotas in process."""
    with running_stack(folder) as stack:
        yield stack


@contextmanager
def together(folder: Path) -> Iterator[Stack]:
    """Two gateways over one Redis and one PostgreSQL."""
    shared = shares_quotas()
    with running_stack(folder, replicas=2 if shared else 1, postgres=True, redis=shared) as stack:
        yield stack


def victims(stack: Stack) -> Sequence[Victim]:
    """What can be killed, in turn."""
    found = [
        Victim(f"gateway {number}", gateway.kill, gateway.start)
        for number, gateway in enumerate(stack.gateways)
    ]
    if redis := stack.redis:
        found.append(Victim("Redis", redis.kill, redis.start))
        found.append(Victim("Redis with its data", partial(_destroy, redis), redis.start))
    if postgres := stack.postgres:
        found.append(Victim("PostgreSQL", postgres.kill, postgres.start))
    return found


def _destroy(redis: RedisServer) -> None:
    redis.kill()
    redis.wipe()


async def play(stack: Stack, victim: Victim, *, seed: int) -> str:
    """Plays a round; returns a line about it.

    Raises:
        BooksBroken: A promise did not hold.
        TimeoutError: Nothing is answered any more.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    environment = stack.environments[0]
    everyone = {
        kind: Callers(
            f"{kind}-{seed}",
            await asyncio.to_thread(make_tenant, environment, f"{kind}-{seed}", limits),
            [gateway.url for gateway in stack.gateways],
            stack.targets,
            random.Random(chance.random()),  # noqa: S311
        )
        for kind, limits in _LIMITS.items()
    }
    before, away = chance.uniform(0.0, 1.5), chance.uniform(0.0, 0.7)
    await _under_load(everyone, victim, before=before, away=away)
    engine = open_engine(stack.database_url)
    try:
        await _until_booked(stack, engine, everyone, victim, what=f"seed {seed}")
    finally:
        await engine.dispose()
    asked = sum(len(callers.record.asked) for callers in everyone.values())
    refused = sum(callers.record.refused for callers in everyone.values())
    return (
        f"seed {seed}: {victim.name} killed after {before:.2f} s, away {away:.2f} s;"
        f" {asked} asked, {_answers(everyone)} answered, {refused} refused by limits"
    )


async def _under_load(
    everyone: dict[str, Callers], victim: Victim, *, before: float, away: float
) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for kind, callers in everyone.items():
            posts = [SLOW] if kind == "slots" else POSTS
            for _ in range(_REST_CALLERS[kind]):
                group.create_task(callers.rest(posts, until=over))
            for _ in range(_DIRECT_CALLERS[kind]):
                group.create_task(callers.direct(until=over))
        try:
            await _answered(everyone, _WARM)
            await asyncio.sleep(before)
            await asyncio.to_thread(victim.kill)
            await asyncio.sleep(away)
            await asyncio.to_thread(victim.start)
            await _answered(everyone, _WARM)
        finally:
            over.set()


async def _answered(everyone: dict[str, Callers], more: int) -> None:
    """Waits until so many more requests were answered: that there is load, and service."""
    wanted = more + _answers(everyone)
    async with asyncio.timeout(_SERVED_SECONDS):
        while _answers(everyone) < wanted:  # noqa: ASYNC110 - what callers count has no event
            await asyncio.sleep(0.02)


def _answers(everyone: dict[str, Callers]) -> int:
    return sum(len(callers.record.answers) for callers in everyone.values())


async def _until_booked(
    stack: Stack, engine: AsyncEngine, everyone: dict[str, Callers], victim: Victim, *, what: str
) -> None:
    """Waits until every promise holds; leases and the writer take their time."""
    deadline = time.monotonic() + _BOOKS_SECONDS
    while found := (
        await _broken(stack, engine, everyone) or await _slots_and_counters(engine, everyone)
    ):
        if time.monotonic() > deadline:
            lines = "\n  ".join(found[:20])
            raise BooksBroken(f"{what}, {victim.name}: {len(found)} promises broken\n  {lines}")
        await asyncio.sleep(0.5)


async def _broken(stack: Stack, engine: AsyncEngine, everyone: dict[str, Callers]) -> list[str]:
    found: list[str] = []
    opened = _opened(stack)
    for kind, callers in everyone.items():
        events = await events_of(engine, callers.tenant)
        closed = {event["id"] for event in events}
        left = [each for each in opened if each.tenant == callers.tenant and each.id not in closed]
        found += [f"{record.request_id}: its reservation stays open" for record in left]
        found += problems(callers.record, events, await hours_of(engine, callers.tenant))
        if kind == "tight" and (used := counted(events)[0]) > TIGHT:
            found.append(f"{callers.tenant}: {used} requests over a limit of {TIGHT}")
    return found


def _opened(stack: Stack) -> list[OpenRecord]:
    """Reservations that the spools call open; any gateway may have closed them since."""
    found: list[OpenRecord] = []
    for spool in stack.spools:
        with suppress(FileNotFoundError):  # the writer has just finished with a file
            found += scan(spool).open
    return found


async def _slots_and_counters(engine: AsyncEngine, everyone: dict[str, Callers]) -> list[str]:
    """Tries the limits: all slots are free again, and counters say what the ledger says."""
    found = []
    slots, plenty = everyone["slots"], everyone["plenty"]
    async with _client(slots) as client:
        tries = [slots.post(client, SLOW) for _ in range(2 * SLOTS)]
        codes = [answer.status_code if answer else 0 for answer in await asyncio.gather(*tries)]
    if codes.count(httpx.codes.OK) != SLOTS:
        found.append(f"{slots.tenant}: {SLOTS} slots, but of {2 * SLOTS} at once: {codes}")
    used, _ = counted(await events_of(engine, plenty.tenant))
    async with _client(plenty) as client:
        answer = await plenty.post(client, POSTS[0])
    left = int(answer.headers.get("x-ratelimit-remaining-requests", -1)) if answer else -1
    if left != PLENTY - used - 1:
        found.append(f"{plenty.tenant}: {left} of {PLENTY} left after {used} and one more")
    return found


def _client(callers: Callers) -> httpx.AsyncClient:
    head = {"authorization": f"Bearer {callers.key}"}
    return httpx.AsyncClient(headers=head, timeout=30)
