"""Many calls of a store, some at a time; `resilient.py` and `sweeper.py` make them.

All at once would keep requests waiting for their turn; one after another, each would wait
for the network and the disk alone.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

_AT_ONCE: Final = 16


async def in_turn(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Awaits all in order, 16 at once; makes no more calls once one has failed.

    Those that were made then are awaited first: none is cancelled.
    """
    left, answers = iter(calls), list[T]()
    while batch := list(islice(left, _AT_ONCE)):
        for outcome in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
    return answers
