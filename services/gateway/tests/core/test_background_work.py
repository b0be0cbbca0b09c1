"""Work beside requests: looked at again after any error, sooner when it is woken."""

import asyncio

import pytest
from sqlalchemy.exc import OperationalError

from atrium_common.errors import Unavailable
from atrium_gateway.background import looking

ERRORS = {
    "a service that is away": Unavailable("away"),
    "a database that is away": OperationalError("SELECT 1", None, Exception()),
    "a disk that is away": OSError("away"),
    "a defect": KeyError("defect"),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_is_not_the_last_look(name):
    looks = asyncio.Queue()

    async def look():
        looks.put_nowait(None)
        raise ERRORS[name]

    async with looking(look, every=0.001, name="test"), asyncio.timeout(10):
        for _ in range(3):
            await looks.get()


async def test_who_is_woken_looks_before_the_pause_is_over():
    looks, wake = asyncio.Queue(), asyncio.Event()

    async def look():
        looks.put_nowait(None)

    async with looking(look, every=3600, name="test", at_once=False, wake=wake):
        async with asyncio.timeout(10):
            for _ in range(2):
                await asyncio.sleep(0)
                assert looks.empty()
                wake.set()
                await looks.get()
    assert looks.empty()
