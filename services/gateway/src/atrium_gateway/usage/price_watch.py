"""Keeps a gateway's price list as the database has it; `core.open_core` enters it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from atrium_gateway.background import beside
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
    async with beside(_follow(repository, prices, interval), name="price-watch"):
        yield prices


async def _follow(repository: PriceRepository, prices: PriceList, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        try:
            if await repository.newest() != prices.newest:
                prices.replace(await repository.versions())
                _log.info("prices_changed", version=prices.newest)
        except (SQLAlchemyError, OSError) as err:
            _log.warning("prices_not_read", error=type(err).__name__)
        except Exception as err:
            # The task's edge: a list that can't be read must not end the watch.
            _log.error("price_watch_broken", exc_info=err)
