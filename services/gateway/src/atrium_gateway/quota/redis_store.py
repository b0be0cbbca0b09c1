"""The quota store that gateways share: Redis, one script call for all limits of a request.

Every key of a tenant has the tenant as its hash tag, so that a cluster keeps them in one
place. The script counts as `counters.py` does; both pass the same tests.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from atrium_common.errors import NotFound, Unavailable
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import LEDGERED, LimitState, Meter, Window
from atrium_gateway.quota.store import Unseeded
from atrium_gateway.quota.verdict import Reading, refusal, states

_SCRIPT: Final = files(__package__).joinpath("redis_store.lua").read_text(encoding="utf-8")
_DIGEST: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_TRIES: Final = 3
"""Calls until the server's clock and the windows that it was told agree."""
_RETRY: Final = timedelta(seconds=1)
_LAPSED_AT_ONCE: Final = 100
_KINDS: Final = {Window.MINUTE: "b", Window.CONCURRENT: "s"}

Answer = list[bytes]
Argument = str | int | bytes


class RedisQuotaStore:
    """Counts in Redis; see `QuotaStore` for the promises.

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
        self._redis = redis
        self._prefix = prefix
        self._timeout = timeout.total_seconds()
        self._clock = clock
        self._ahead = 0
        """How far the server's clock was ahead of ours when it last said, milliseconds."""

    async def seed(self, tenant: str, meter: Meter, used: int) -> None:
        start, _ = window_bounds(meter.window, self._now(), meter.time_zone)
        script = (
            "if redis.call('EXISTS', KEYS[1]) == 0 then"
            " redis.call('HSET', KEYS[1], 's', ARGV[1], 'u', ARGV[2]) end return {}"
        )
        await self._answered(
            self._redis.eval(script, 1, self._key(tenant, meter.key), str(start), str(used))
        )

    async def reserve(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> tuple[LimitState, ...]:
        before = (_milliseconds(lease), note)
        answer = await self._judged("reserve", tenant, reservation_id, before, meters, amounts)
        return states(meters, _readings(answer), amounts)

    async def renew(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int] | None,
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> None:
        before = (_milliseconds(lease), note)
        if amounts is None:
            meters = amounts = ()
        answer = await self._judged("renew", tenant, reservation_id, before, meters, amounts)
        if answer[0] == b"gone":
            raise NotFound("The reservation is closed or its lease has passed.")

    async def settle(self, tenant: str, reservation_id: str, amounts: Sequence[int]) -> bool:
        answer = await self._call("settle", tenant, reservation_id, amounts)
        return answer[0] == b"settled"

    async def claim(self, tenant: str, reservation_id: str) -> bytes | None:
        answer = await self._call("claim", tenant, reservation_id, ())
        return answer[2] if answer[0] == b"claimed" else None

    async def lapsed(self, tenant: str) -> Sequence[str]:
        found = self._redis.zrangebyscore(
            self._key(tenant, "leases"), "-inf", self._now(), start=0, num=_LAPSED_AT_ONCE
        )
        ids = cast("list[bytes]", await self._answered(found))
        return [reservation_id.decode() for reservation_id in ids]

    async def _judged(
        self,
        operation: str,
        tenant: str,
        reservation_id: str,
        before: Sequence[Argument],
        meters: Sequence[Meter],
        amounts: Sequence[int],
    ) -> Answer:
        """Calls an operation over meters until the windows it is told hold the server's now."""
        counters = [self._key(tenant, meter.key) for meter in meters]
        for _ in range(_TRIES):
            told = _told(meters, amounts, self._now())
            answer = await self._call(
                operation, tenant, reservation_id, (*before, *told), keys=counters
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
        everything = (
            *(self._key(tenant, f"held:{reservation_id}"), self._key(tenant, "leases"), *keys),
            *(operation, told, reservation_id, *arguments),
        )
        count = 2 + len(keys)
        try:
            found = await self._answered(self._redis.evalsha(_DIGEST, count, *everything))
        except NoScriptError:  # the server was restarted, or another one took over
            found = await self._answered(self._redis.eval(_SCRIPT, count, *everything))
        return cast("Answer", found)

    async def _answered(self, call: object) -> object:
        try:
            async with asyncio.timeout(self._timeout):
                return await call  # type: ignore[misc]
        except NoScriptError:
            raise
        except (RedisError, TimeoutError, OSError) as err:
            raise Unavailable(
                "The quota store can't be reached now.",
                reason="QUOTA_STORE_AWAY",
                retry_after=_RETRY,
            ) from err

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
