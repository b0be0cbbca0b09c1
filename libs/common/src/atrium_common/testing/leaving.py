"""Callers who leave a streaming call at any moment, or stay."""

import asyncio
import contextlib
import random
from typing import Any


async def leave(call: Any, chance: random.Random) -> None:
    """Leaves a call after some messages or some time, or stays to its end."""
    way = chance.choice(("messages", "time", "stay"))
    messages = chance.randint(0, 40) if way == "messages" else 10_000
    patience = chance.uniform(0, 0.1) if way == "time" else None
    answers = aiter(call)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(patience):
            while messages and await anext(answers, None) is not None:
                messages -= 1
    call.cancel()
