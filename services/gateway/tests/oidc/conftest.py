"""An issuer per test, and what checks its tokens, on clocks that stand still."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from atrium_gateway.auth.documents import DocumentFetcher
from atrium_gateway.auth.issuer_rules import IssuerRules
from atrium_gateway.auth.issuers import TokenIssuers

if TYPE_CHECKING:
    from issuer_server import Issuer


class Clock:
    """Seconds that move only when told to."""

    def __init__(self) -> None:
        from issuer_server import NOW

        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer() -> "AsyncIterator[Issuer]":
    from issuer_server import running_issuer

    async with running_issuer() as running:
        yield running


@pytest.fixture
async def make_issuers(issuer: "Issuer", clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    """Makes what checks the issuer's tokens, by rules with changes."""
    made = []

    def make(**changes: Any) -> TokenIssuers:
        rules = {"issuer": issuer.url, "audience": "atrium", "tenants": ("acme",), **changes}
        made.append(
            TokenIssuers(
                [IssuerRules(**rules)],
                fetch=DocumentFetcher(seconds=1.0),
                clock=clock,
                monotonic=clock,
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()
