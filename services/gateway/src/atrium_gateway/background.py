"""Work that goes on beside requests for as long as a block is entered; `core.py`'s parts use it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from atrium_common.errors import AtriumError

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def beside(work: Coroutine[object, object, None], *, name: str) -> AsyncIterator[None]:
    """Runs `work`, and cancels it when the block is left.

    Args:
        work: Sees to its own errors: one that it raises is raised when the block is left.
        name: Of its task, for stack dumps.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def looking(
    look: Callable[[], Awaitable[None]],
    *,
    every: float,
    name: str,
    at_once: bool = True,
    wake: asyncio.Event | None = None,
) -> AsyncIterator[None]:
    """Calls `look` again and again beside the block; an error is logged, and it goes on.

    Args:
        look: Does what there is to do, and returns.
        every: Seconds between the end of one look and the next.
        name: Of its task and in the log.
        at_once: Whether the first look is now or after the pause.
        wake: Ends a pause before its time when it is set.
    """
    async with beside(_look(look, every, name, at_once, wake or asyncio.Event()), name=name):
        yield


async def _look(
    look: Callable[[], Awaitable[None]],
    every: float,
    name: str,
    at_once: bool,
    wake: asyncio.Event,
) -> None:
    if not at_once:
        await _pause(every, wake)
    while True:
        try:
            await look()
        except AtriumError as err:
            _log.warning("background_work_waits", work=name, reason=err.reason)
        except (SQLAlchemyError, OSError) as err:
            _log.warning("background_work_waits", work=name, reason=type(err).__name__)
        except Exception as err:
            # The task's edge: what it could not do stays to be done, and is tried again.
            _log.error("background_work_broken", work=name, exc_info=err)
        await _pause(every, wake)


async def _pause(seconds: float, wake: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), seconds)
    wake.clear()
