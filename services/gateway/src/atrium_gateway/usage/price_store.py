"""Keeps every version of the price book in the database; `core.open_core` calls it."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.usage.price import PriceBook
from atrium_gateway.usage.tables import price_book

_DECODER = msgspec.json.Decoder(dict[str, dict[str, Decimal]])


async def put_in_force(
    engine: AsyncEngine, prices: Mapping[str, Mapping[str, Decimal]], *, now: datetime
) -> PriceBook:
    """Makes `prices` the book in force: a new version only if they differ from the last.

    Raises:
        ValueError: A price is negative or of an unknown unit.
    """
    async with engine.begin() as connection:
        newest = select(price_book).order_by(price_book.c.version.desc()).limit(1)
        row = (await connection.execute(newest)).one_or_none()
        if row is not None and _DECODER.decode(row.prices) == prices:
            return PriceBook(row.version, prices)
        if row is None and not prices:
            return PriceBook()
        book = PriceBook(row.version + 1 if row else 1, prices)
        await connection.execute(
            insert(price_book).values(
                version=book.version,
                prices=msgspec.json.encode(prices).decode(),
                effective_from=now,
            )
        )
        return book
