"""`/api/prices`: what models cost; operators set versions with a date."""

from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

from atrium_common.errors import NotFound
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.names import Moment, Text, in_utc
from atrium_gateway.api.reach import reach, reach_all
from atrium_gateway.auth.roles import Action, Role
from atrium_gateway.usage.price import ModelPrices

_ENCODER = msgspec.json.Encoder(decimal_format="string")

Amounts = dict[str, Decimal]


class PricesQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/prices`: a time (RFC 3339 with its zone), now if not given."""

    at: Moment | None = None


class PriceRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/prices`: all that a model costs from a time on.

    Amounts are decimal numbers in text, by unit. Without `prices` the catalogue's hold
    again. `costs` are what its provider charges.
    """

    model: Text
    prices: Amounts | None = None
    costs: Amounts | None = None
    effective_from: Moment | None = None


class ModelPrice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model costs, by unit; `costs` are shown to operators alone."""

    model: str
    version: int
    prices: Amounts
    costs: Amounts | None = None


class PriceAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/prices`; a model that is not in it is free."""

    at: datetime
    models: list[ModelPrice]


class PriceMade(Struct, frozen=True, kw_only=True):
    """Answer of `POST /api/prices`."""

    version: int
    model: str
    effective_from: datetime


async def show_prices(exchange: Exchange) -> None:
    """Shows the prices that hold at a time."""
    allowed = await reach(exchange, Action.PRICES_READ)
    query = convert(dict(exchange.query_params), PricesQuery)
    at = in_utc(query.at, "at") or exchange.gateway.administration.now()
    book = (await allowed.prices.book()).at(int(at.timestamp() * 1000))
    operator = Role.OPERATOR in allowed.principal.roles
    answer = PriceAnswer(
        at=at,
        models=[
            ModelPrice(
                model=model,
                version=book.versions.get(model, book.version),
                prices=_plain(book.prices.get(model, {})),
                costs=_plain(book.costs.get(model, {})) if operator else None,
            )
            for model in sorted({*book.prices, *(book.costs if operator else ())})
        ],
    )
    await exchange.reply(_ENCODER.encode(answer))


async def set_price(exchange: Exchange) -> None:
    """Sets what a model costs; what was admitted before keeps its price."""
    allowed = await reach_all(exchange, Action.PRICES_WRITE)
    asked = decode(await exchange.json_body(), PriceRequest)
    if asked.model not in {entry.id for entry in exchange.gateway.catalogue.models}:
        raise NotFound(f"The catalogue has no model {asked.model!r}.", field="model")
    made = await allowed.prices.set_price(
        asked.model,
        asked.prices,
        costs=asked.costs,
        effective_from=in_utc(asked.effective_from, "effective_from"),
    )
    answer = PriceMade(version=made.version, model=asked.model, effective_from=made.effective_from)
    await exchange.reply(_ENCODER.encode(answer), status=201)


def _plain(prices: ModelPrices) -> Amounts:
    return dict(prices)
