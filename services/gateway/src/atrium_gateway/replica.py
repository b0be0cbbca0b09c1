"""What a gateway process has of its own, and what it shares with others; `core.py` enters it.

Alone, a process counts in memory and refuses a second one over the same state. With Redis,
processes count together; each has a spool of its own, for a spool has one writer.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import AtriumError, Conflict
from atrium_gateway.admission import Admission
from atrium_gateway.background import beside
from atrium_gateway.quota.in_process import InProcessQuotaStore
from atrium_gateway.quota.resilient import ResilientQuotaStore
from atrium_gateway.quota.store import GatewayQuotaStore, QuotaStore
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.changes import on_change

_log = structlog.get_logger(__name__)

_SWEEP_SECONDS: Final = 0.5
_MOST_PROCESSES: Final = 64


@contextmanager
def own_spool(settings: GatewaySettings) -> Iterator[Path]:
    """Holds the folder of this process's spool.

    Where processes share a store, the first free one of ``spool``, ``spool-2``, ...: a
    process that is started again takes over what the one that died left behind.

    Raises:
        Conflict: Another process runs over the same state, and the store is in memory.
    """
    if settings.quota_redis_url is None:
        with _held(settings.lock_file) as held:
            if not held:
                raise Conflict(
                    f"Another gateway process runs over {settings.state_dir}; the in-process "
                    "quota store allows one.",
                    reason="GATEWAY_RUNNING",
                )
            yield settings.spool_dir
        return
    for number in range(1, _MOST_PROCESSES + 1):
        name = settings.spool_dir.name + (f"-{number}" if number > 1 else "")
        folder = settings.spool_dir.with_name(name)
        with _held(folder / "process.lock") as held:
            if held:
                yield folder
                return
    raise Conflict(f"{_MOST_PROCESSES} gateways run over {settings.state_dir}.")


@asynccontextmanager
async def open_quota_store(
    settings: GatewaySettings,
    *,
    falls_back: Callable[[str], bool],
    clock: Callable[[], float],
) -> AsyncIterator[tuple[QuotaStore, GatewayQuotaStore | None]]:
    """Opens the store that `settings` name; yields it, and once more if it is shared.

    Args:
        settings: Settings of the gateway.
        falls_back: Whether a tenant's rates may be counted here alone.
        clock: Returns Unix seconds; of another than the system's, Redis is told the time.
    """
    url = settings.resolved_quota_redis_url()
    if url is None:
        yield InProcessQuotaStore(clock=clock), None
        return
    # Redis's client is an extra, which one gateway alone does not need.
    from atrium_gateway.quota.redis_calls import open_redis
    from atrium_gateway.quota.redis_store import RedisQuotaStore

    redis = open_redis(url)
    own_clock = None if clock is time.time else clock
    store = ResilientQuotaStore(
        RedisQuotaStore(
            redis, clock=own_clock, timeout=timedelta(seconds=settings.quota_timeout_seconds)
        ),
        make_local=lambda: InProcessQuotaStore(clock=clock),
        falls_back=falls_back,
    )
    try:
        yield store, store
    finally:
        await store.tend()
        await redis.aclose()


@asynccontextmanager
async def telling_changes(
    settings: GatewaySettings, engine: AsyncEngine, *, heard: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Tells of changes of tenants, keys and limits made through `engine`, while it is entered.

    Other gateways hear of them through Redis, where there is one.

    Args:
        settings: Settings of the gateway.
        engine: The database.
        heard: Called at each change, this process's and others'; a command listens to none.
    """
    url = settings.resolved_quota_redis_url()
    if url is None:
        if heard is not None:
            on_change(engine, heard)
        yield
        return
    from atrium_gateway.tenants.redis_changes import ChangeChannel

    channel = ChangeChannel(url)
    on_change(engine, channel.announce)
    try:
        if heard is None:
            yield
            return
        on_change(engine, heard)
        async with beside(channel.follow(heard), name="change-listener"):
            yield
    finally:
        await channel.close()


@asynccontextmanager
async def sweeping(admission: Admission) -> AsyncIterator[None]:
    """Closes reservations whose lease has passed, for as long as it is entered."""

    leaving = asyncio.Event()

    async def sweep() -> None:
        while not leaving.is_set():
            try:
                await admission.expire()
            except AtriumError as err:
                _log.warning("sweep_failed", reason=err.reason)
            except Exception as err:
                # The task's edge: a sweep that breaks must not be the last one.
                _log.error("sweeper_broken", exc_info=err)
            with suppress(TimeoutError):
                await asyncio.wait_for(leaving.wait(), _SWEEP_SECONDS)

    task = asyncio.create_task(sweep(), name="lease-sweeper")
    try:
        yield
    finally:
        leaving.set()  # not cancelled: what a round has claimed it must also write
        await task
        await admission.drain()


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Waits until no other process is in the same block, for what is done one by one."""
    with _held(file, wait=True):
        yield


@contextmanager
def _held(file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Locks a file; yields whether that worked."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
