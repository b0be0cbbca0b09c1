"""The quota store that gateways share: Redis, one script call for all limits of a request.

Every key of a tenant has the tenant as its hash tag, so that a cluster keeps them in one
place. The script counts as `counters.py` does; both pass the same tests.
"""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, cast

from redis.asyncio import Redis

from atrium_common.errors import NotFound, Unavailable
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import LEDGERED, LimitState, Meter, Window
from atrium_gateway.quota.redis_calls import Answer, RedisCalls, store_away
from atrium_gateway.quota.redis_line import Argument
from atrium_gateway.quota.script import ADMITTING, GOING_ON
from atrium_gateway.quota.store import Consumed, Found, Hold, Unseeded
from atrium_gateway.quota.verdict import Reading, refusal, states

_MOST_APART: Final = 5_000
"""Restored reservations that the ledger is asked to leave out; more are counted twice, so that
a window may give a little less, never more."""
_TRIES: Final = 3
"""Calls until the server's clock and the windows that it was told agree."""
_RETRY: Final = timedelta(seconds=1)
_LAPSED_AT_ONCE: Final = 10_000
_CONFIRMED_AT_ONCE: Final = 200
_TENANTS_AT_ONCE: Final = 200
_IDLE_AT_ONCE: Final = 5
_NAMED_SECONDS: Final = 30.0
"""A tenant is named this often for those who look for lapsed reservations."""
_FORGET_SECONDS: Final = 3 * _NAMED_SECONDS
_NAMES_KEPT: Final = 10_000
_KINDS: Final = {Window.MINUTE: "b", Window.CONCURRENT: "s"}


class RedisQuotaStore:
    """Counts in Redis; see `RemoteQuotaStore` for the promises.

    Args:
        redis: A client of a server, version 7 or newer; it stays the caller's.
        prefix: Begins every key.
        timeout: Longest wait for an answer.
        clock: Returns Unix seconds instead of the server's clock, for tests.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str = "atrium",
        timeout: timedelta = timedelta(milliseconds=50),
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._calls = RedisCalls(redis, timeout=timeout)
        self._redis = redis
        self._prefix = prefix
        self._clock = clock
        self._named: dict[str, float] = {}
        self._ahead = 0
        """How far the server's clock was ahead of ours when it last said, milliseconds."""

    async def seed(self, tenant: str, meter: Meter, consumed: Consumed) -> None:
        key = (self._key(tenant, meter.key),)
        for tries_left in reversed(range(_TRIES)):
            answer = await self._call("restored", tenant, "", (), keys=key)
            if answer[0] == b"seeded":
                return
            apart = [name.decode() for name in answer[2:]]
            used = await consumed(apart[:_MOST_APART])
            start, _ = window_bounds(meter.window, self._now(), meter.time_zone)
            told = (start, used, len(apart) if tries_left else "")
            if (await self._call("seed", tenant, "", told, keys=key))[0] == b"seeded":
                return

    async def peek(self, tenant: str, meters: Sequence[Meter]) -> Sequence[Reading]:
        asked = Hold(tenant, "", meters, [0] * len(meters), timedelta())
        return _readings(await self._judged("peek", asked))

    async def reserve(self, hold: Hold) -> tuple[LimitState, ...]:
        await self._name(hold.tenant)
        answer = await self._judged("reserve", hold)
        if answer[0] == b"gone":
            raise store_away()  # given back already: nobody waits for this answer any more
        return states(hold.meters, _readings(answer), hold.amounts)

    async def restore(self, hold: Hold) -> bool:
        await self._name(hold.tenant)
        return (await self._judged("restore", hold))[0] == b"held"

    async def renew(self, hold: Hold, *, grow: bool) -> None:
        if not grow:
            hold = Hold(hold.tenant, hold.id, (), (), hold.lease)
        if (await self._judged("renew", hold))[0] == b"gone":
            raise NotFound("The reservation is closed or its lease has passed.")

    async def attach(self, hold: Hold) -> bool:
        return (await self._judged("attach", hold))[0] == b"held"

    async def book(self, hold: Hold) -> None:
        await self._judged("book", hold)

    async def settle(
        self, tenant: str, reservation_id: str, amounts: Sequence[int], *, note: bytes = b""
    ) -> bool:
        answer = await self._call("settle", tenant, reservation_id, (note, *amounts))
        return answer[0] == b"settled"

    async def void(self, tenant: str, reservation_id: str) -> None:
        await self._call("void", tenant, reservation_id, ())

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        answer = await self._call("find", tenant, reservation_id, ())
        if answer[0] == b"gone":
            return None
        left = timedelta(milliseconds=int(answer[3])) if answer[0] == b"open" else None
        return Found(answer[2], left)

    async def claim(self, tenant: str, reservation_id: str, *, note: bytes = b"") -> bytes | None:
        answer = await self._call("claim", tenant, reservation_id, (note,))
        return answer[2] if answer[0] == b"claimed" else None

    async def confirm(self, tenant: str, reservation_ids: Sequence[str]) -> None:
        for at in range(0, len(reservation_ids), _CONFIRMED_AT_ONCE):
            ids = reservation_ids[at : at + _CONFIRMED_AT_ONCE]
            closed = [self._key(tenant, f"held:{each}") for each in ids]
            await self._call("confirm", tenant, "", ids, keys=closed)

    async def lapsed(self, tenant: str) -> Sequence[str]:
        key, now = self._key(tenant, "leases"), self._now()
        ids = await self._calls.answered(
            lambda: self._redis.zrangebyscore(key, "-inf", now, start=0, num=_LAPSED_AT_ONCE)
        )
        return [reservation_id.decode() for reservation_id in cast("list[bytes]", ids)]

    async def generation(self) -> int:
        key, now = f"{self._prefix}:generation", self._now()
        found = await self._calls.answered(lambda: self._redis.set(key, now, nx=True, get=True))
        return now if found is None else int(found)

    async def tenants(self) -> Sequence[str]:
        known, key = self._calls, self._tenants
        before = time.time() - _FORGET_SECONDS
        idle = await known.answered(
            lambda: self._redis.zrangebyscore(key, "-inf", before, start=0, num=_IDLE_AT_ONCE)
        )
        for name in cast("list[bytes]", idle):
            await self._forget_idle(name)
        some = await known.answered(lambda: self._redis.zrandmember(key, _TENANTS_AT_ONCE))
        return [name.decode() for name in cast("list[bytes]", some)]

    async def _forget_idle(self, name: bytes) -> None:
        """Forgets a tenant that is named no more, if it has no lease."""
        leases = self._key(name.decode(), "leases")
        if not await self._calls.answered(lambda: self._redis.exists(leases)):
            await self._calls.answered(lambda: self._redis.zrem(self._tenants, name))

    @property
    def _tenants(self) -> str:
        return f"{self._prefix}:tenants"

    async def _name(self, tenant: str) -> None:
        """Names a tenant for `tenants`, now and then."""
        now = time.time()
        if now < self._named.get(tenant, 0.0):
            return
        if len(self._named) > _NAMES_KEPT:
            self._named.clear()
        self._named[tenant] = now + _NAMED_SECONDS
        try:
            await self._calls.answered(lambda: self._redis.zadd(self._tenants, {tenant: now}))
        except BaseException:
            self._named.pop(tenant, None)
            raise

    async def _judged(self, operation: str, hold: Hold) -> Answer:
        """Calls an operation over meters until the windows it is told hold the server's now."""
        meters, amounts = hold.meters, hold.amounts
        counters = [self._key(hold.tenant, meter.key) for meter in meters]
        before = (_milliseconds(hold.lease), hold.note)
        for _ in range(_TRIES):
            told = _told(meters, amounts, self._now())
            answer = await self._call(
                operation, hold.tenant, hold.id, (*before, *told), keys=counters
            )
            if answer[0] == b"moved":
                self._ahead = int(answer[1]) - int(time.time() * 1000)
                continue
            if answer[0] == b"unseeded":
                raise Unseeded([meters[int(index)] for index in answer[2:]])
            if answer[0] == b"refused":
                raise refusal(meters, _readings(answer), amounts, now=int(answer[1]))
            return answer
        raise Unavailable("The quota store's clock runs wild.", retry_after=_RETRY)

    async def _call(
        self,
        operation: str,
        tenant: str,
        reservation_id: str,
        arguments: Sequence[Argument],
        *,
        keys: Sequence[str] = (),
    ) -> Answer:
        told = "" if self._clock is None else self._now()
        every = (self._key(tenant, f"held:{reservation_id}"), self._key(tenant, "leases"), *keys)
        script = ADMITTING if operation == "reserve" else GOING_ON
        told_all = (operation, told, reservation_id, *arguments)
        return await self._calls.script(every, told_all, script=script)

    def _now(self) -> int:
        if self._clock is not None:
            return int(self._clock() * 1000)
        return int(time.time() * 1000) + self._ahead

    def _key(self, tenant: str, name: str) -> str:
        return f"{self._prefix}:{{{tenant}}}:{name}"


def _told(meters: Sequence[Meter], amounts: Sequence[int], now: int) -> list[Argument]:
    told: list[Argument] = []
    for meter, amount in zip(meters, amounts, strict=True):
        start, end = (0, 0)
        if meter.window in LEDGERED:
            start, end = window_bounds(meter.window, now, meter.time_zone)
        told += [_KINDS.get(meter.window, "c"), meter.limit, amount, start, end]
    return told


def _readings(answer: Answer) -> list[Reading]:
    values = [int(value) for value in answer[2:]]
    return [Reading(*values[at : at + 3]) for at in range(0, len(values), 3)]


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
