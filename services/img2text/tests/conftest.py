"""Lets test modules import their neighbours, and starts services for them."""

import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from seeing_service import Running, Serve


@pytest.fixture
def serve(tmp_path: Path) -> "Serve":
    """Starts a service."""
    from seeing_service import serving

    return partial(serving, tmp_path)


@pytest.fixture
async def service(serve: "Serve") -> "AsyncIterator[Running]":
    """A service with the fake engine at its defaults."""
    async with serve() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Running]":
    """A service with the fake engine, for tests that leave it as it was."""
    from seeing_service import serving

    async with serving(tmp_path_factory.mktemp("spool")) as running:
        yield running
