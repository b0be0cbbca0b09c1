"""Keeps a gateway's price list as the database has it; `core.open_core` enters it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from atrium_gateway.background import looking
from atrium_gateway.usage.price_list import PriceList
from atrium_gateway.usage.price_store import PriceRepository

_log = structlog.get_logger(__name__)

_POLL_SECONDS = 1.0
"""Less than `price_store.NOTICE`, so that a price is known before it holds."""


@asynccontextmanager
async def watched_prices(
    repository: PriceRepository, *, interval: float = _POLL_SECONDS
) -> AsyncIterator[PriceList]:
    """The price list, kept up to date for as long as it is entered.

    While the database is away the list stays as it was.

    Args:
        repository: The versions in the database.
        interval: Seconds between two looks at it.
    """
    prices = PriceList(await repository.versions())

    async def look() -> None:
        if await repository.newest() != prices.newest:
            prices.replace(await repository.versions())
            _log.info("prices_changed", version=prices.newest)

    async with looking(look, every=interval, name="price-watch", at_once=False):
        yield prices
