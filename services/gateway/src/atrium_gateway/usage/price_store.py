"""Keeps every version of the price book in the database; nothing in it is ever changed.

A gateway that starts puts its catalogue in; operators set single models' prices.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec
from sqlalchemy import Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from atrium_common.errors import Conflict, InvalidArgument
from atrium_gateway.database_scope import Database
from atrium_gateway.usage.price import ModelPrices, Prices, check_prices
from atrium_gateway.usage.price_list import PriceVersion
from atrium_gateway.usage.tables import price_book

NOTICE: Final = timedelta(seconds=5)
"""Earliest start of a price that an operator sets: by then every replica has read it, so
that what is admitted from then on is priced by it everywhere."""

_DECODER = msgspec.json.Decoder(dict[str, dict[str, Decimal]])
_TRIES = 5


class PriceRepository:
    """The versions of the price book.

    Args:
        engine: The database, upgraded.
    """

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    async def newest(self) -> int:
        """The highest version; 0 if there is none."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.max(price_book.c.version))) or 0

    async def versions(self) -> Sequence[PriceVersion]:
        """All of them, oldest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(price_book).order_by(price_book.c.version))
            return [_version(row) for row in rows]

    async def put_catalogue(self, prices: Prices, costs: Prices, *, now: datetime) -> None:
        """Makes these the catalogue's prices from `now` on, if they differ from the last.

        Raises:
            ValueError: A price is negative or of an unknown unit.
        """
        for _ in range(_TRIES):
            known = await self.versions()
            stated = [each for each in known if each.model is None]
            if stated and (stated[-1].prices, stated[-1].costs) == (prices, costs):
                return
            if not stated and not prices and not costs:
                return
            version = known[-1].version + 1 if known else 1
            if await self._added(PriceVersion(version, now, None, prices, costs)):
                return
        raise _contended()

    async def set_price(
        self,
        model: str,
        prices: ModelPrices | None,
        *,
        costs: ModelPrices | None = None,
        effective_from: datetime,
        now: datetime,
    ) -> PriceVersion:
        """Prices one model from a time on, whatever the catalogue says.

        Args:
            model: Catalogue id.
            prices: What tenants are charged for it, and nothing but these; ``None`` for
                the catalogue's prices again.
            costs: What its provider charges; ``None`` for what the catalogue says.
            effective_from: Aware; at least `NOTICE` after `now`.
            now: The time.

        Raises:
            InvalidArgument: A price is negative or of an unknown unit, or it is too late
                for `effective_from`.
        """
        if effective_from < now + NOTICE:
            raise InvalidArgument(
                f"A price can hold from {NOTICE.total_seconds():g} seconds after it is set, "
                "not earlier: what was admitted before is priced already.",
                field="effective_from",
            )
        try:
            for stated in (prices, costs):
                check_prices(model, stated or {})
        except ValueError as err:
            raise InvalidArgument(f"This can't be: {err}.", field="prices") from err
        for _ in range(_TRIES):
            made = PriceVersion(
                await self.newest() + 1,
                effective_from,
                model,
                {} if prices is None else {model: prices},
                {} if costs is None else {model: costs},
            )
            if await self._added(made):
                return made
        raise _contended()

    async def _added(self, version: PriceVersion) -> bool:
        """Whether the number of `version` was still free."""
        for book in (version.prices, version.costs):
            for model, prices in book.items():
                check_prices(model, prices)
        values = {
            "version": version.version,
            "prices": msgspec.json.encode(version.prices).decode(),
            "effective_from": version.effective_from,
            "model": version.model,
            "costs": msgspec.json.encode(version.costs).decode(),
        }
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(price_book).values(values))
        except IntegrityError:
            return False
        return True


def _contended() -> Conflict:
    return Conflict("Others change the price book right now; try again.")


def _version(row: Row[tuple[object, ...]]) -> PriceVersion:
    return PriceVersion(
        row.version,
        row.effective_from,
        row.model,
        _DECODER.decode(row.prices),
        _DECODER.decode(row.costs),
    )
