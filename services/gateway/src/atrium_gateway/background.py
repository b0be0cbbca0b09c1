"""Work that goes on beside requests for as long as a block is entered; `core.py`'s parts use it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress


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
