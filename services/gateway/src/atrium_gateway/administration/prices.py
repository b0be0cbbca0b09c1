"""Prices of models, set by operators and audited in the same transaction."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_gateway.audit.domain import Action, Actor, AuditEntry, Facts
from atrium_gateway.audit.log import append
from atrium_gateway.database_scope import Joined
from atrium_gateway.usage.price import ModelPrices
from atrium_gateway.usage.price_list import PriceList, PriceVersion
from atrium_gateway.usage.price_store import NOTICE, PriceRepository

_MARGIN = timedelta(seconds=1)
"""What a request may take on its way, so that the earliest start is not over when it is set."""


class PriceDesk:
    """The price book, changed in the name of someone.

    Args:
        engine: The database, upgraded.
        by: Who asks.
        now: The time, aware UTC.
        new_id: Makes UUIDv7s.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        by: Actor,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._by = by
        self._now = now
        self._new_id = new_id

    async def book(self) -> PriceList:
        """Every version of the price book."""
        return PriceList(await PriceRepository(self._engine).versions())

    async def set_price(
        self,
        model: str,
        prices: ModelPrices | None,
        *,
        costs: ModelPrices | None = None,
        effective_from: datetime | None = None,
    ) -> PriceVersion:
        """Prices one model; see `PriceRepository.set_price`.

        Args:
            model: Catalogue id.
            prices: What tenants are charged; ``None`` for the catalogue's prices again.
            costs: What its provider charges.
            effective_from: Aware; as soon as every gateway knows of it, if not given.

        Raises:
            InvalidArgument: A price is negative or of an unknown unit, or it is too late.
            Conflict: Others change the price book at this moment.
        """
        now = self._now()
        async with self._engine.begin() as connection:
            made = await PriceRepository(Joined(connection)).set_price(
                model,
                prices,
                costs=costs,
                effective_from=effective_from or now + NOTICE + _MARGIN,
                now=now,
            )
            entry = AuditEntry(
                id=self._new_id(),
                at=now,
                by=self._by,
                action=Action.PRICES_SET,
                tenant=None,
                target=model,
                after=_facts(made),
            )
            await append(connection, entry)
        return made


def _facts(made: PriceVersion) -> Facts:
    return {
        "version": made.version,
        "effective_from": made.effective_from.isoformat(),
        "prices": [
            f"{unit}={amount}" for book in made.prices.values() for unit, amount in book.items()
        ],
        "costs": [
            f"{unit}={amount}" for book in made.costs.values() for unit, amount in book.items()
        ],
    }
