"""Lets test modules import their neighbours, and starts services for them."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from drawing_service import Running


@pytest.fixture
async def service() -> "AsyncIterator[Running]":
    """A service with the fake engine at its defaults."""
    from drawing_service import serving

    async with serving() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared() -> "AsyncIterator[Running]":
    """A service for tests that leave it as it was; its second model takes its time."""
    from drawing_service import entry, serving

    entries = entry(), entry("slow-pictures", aliases=(), seconds_per_step=0.02)
    async with serving(entries=entries) as running:
        yield running
