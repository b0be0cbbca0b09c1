"""Local servers that misbehave, names that resolve as a test says, and a fetcher over them."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "rest")]


@pytest.fixture
async def web() -> AsyncIterator[Any]:
    """A server on 127.0.0.1 and, on the same port, a trap on 127.0.0.2."""
    from egress_web import running_web

    async with running_web() as running:
        yield running


@pytest.fixture
def fetcher() -> Callable[..., Any]:
    """Makes a fetcher of the hosts that the test names."""
    from egress_web import make_fetcher

    return make_fetcher


@pytest.fixture
def start_rest(tmp_path: Path) -> Callable[..., Any]:
    """Starts a whole gateway over the services that answer chats and see."""
    from rest_gateway import running_rest

    return lambda **options: running_rest(tmp_path, tts=False, pictures=False, **options)


@pytest.fixture
def picture() -> bytes:
    """A picture file."""
    from rest_pictures import gradient

    return gradient()
