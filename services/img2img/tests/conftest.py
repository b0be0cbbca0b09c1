"""Lets test modules import their neighbours, and starts services for them."""

import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from editing_service import Running, Serve


@pytest.fixture
def serve(tmp_path: Path) -> "Serve":
    """Starts a service whose uploads lie in a folder of its own."""
    from editing_service import serving

    return partial(serving, tmp_path)


@pytest.fixture
async def service(serve: "Serve") -> "AsyncIterator[Running]":
    """A service with the fake engine at its defaults."""
    async with serve() as running:
        yield running
