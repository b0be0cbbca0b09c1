"""Lets test modules import their neighbours, and starts services for them."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from drawing_service import Running


@pytest.fixture
async def service() -> "AsyncIterator[Running]":
    """A service with the fake engine at its defaults."""
    from drawing_service import serving

    async with serving() as running:
        yield running
