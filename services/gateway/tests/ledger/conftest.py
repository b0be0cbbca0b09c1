"""The ledger over both databases: every test of this folder that asks for one runs twice.

Lets test modules import their neighbour `ledger_events.py`.
"""

import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.database import open_engine, upgrade

sys.path.insert(0, str(Path(__file__).parent))
_numbers = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("real_postgres").new_database(f"ledger_{next(_numbers)}")


@pytest.fixture
async def engine(empty_url: str) -> AsyncIterator[AsyncEngine]:
    """An upgraded database."""
    opened = open_engine(empty_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()
