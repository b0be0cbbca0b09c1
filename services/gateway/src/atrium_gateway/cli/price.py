"""`atrium price`: what models cost, now, before and from a date on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from atrium_common.errors import InvalidArgument, NotFound
from atrium_gateway.cli.output import Json, Record, show, show_list
from atrium_gateway.cli.session import operator, with_administration, with_engine
from atrium_gateway.cli.times import read_time
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.usage.price import ModelPrices, PriceBook
from atrium_gateway.usage.price_list import PriceList, PriceVersion
from atrium_gateway.usage.price_store import PriceRepository

app = typer.Typer(no_args_is_help=True)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Catalogue id of the model.")]
From = Annotated[
    str, typer.Option("--from", help="ISO 8601 time with a zone; in a few seconds if not given.")
]


@app.command("list")
def list_(
    at: Annotated[str, typer.Option(help="ISO 8601 time with a zone; now if not given.")] = "",
    history: Annotated[
        bool, typer.Option("--history", help="Every version, those to come included.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Lists prices per unit: what tenants are charged, and what providers charge."""
    versions = with_engine(lambda engine: PriceRepository(engine).versions())
    if history:
        records = [record for each in versions for record in _history(each)]
    else:
        time = read_time(at, "at") if at else datetime.now(UTC)
        records = _book(PriceList(versions).at(int(time.timestamp() * 1000)))
    show_list(records, as_json=as_json, empty="Nothing has a price.")


@app.command("set")
def set_(
    model: Model,
    prices: Annotated[
        list[str] | None,
        typer.Argument(metavar="UNIT=AMOUNT...", help="All that it costs, e.g. image=0.04."),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option("--cost", metavar="UNIT=AMOUNT", help="What its provider charges."),
    ] = None,
    catalogue: Annotated[
        bool, typer.Option("--catalogue", help="The catalogue's prices again.")
    ] = False,
    start: From = "",
    as_json: Json = False,
) -> None:
    """Sets what a model costs from a time on; what was admitted before keeps its price."""
    if catalogue == bool(prices) or (catalogue and cost):
        raise InvalidArgument("Give prices, or --catalogue alone.", field="prices")
    if model not in {entry.id for entry in GatewaySettings().open_catalogue()}:
        raise NotFound(f"The catalogue has no model {model!r}.")

    amounts = None if catalogue else _amounts(prices or [])
    costs = _amounts(cost) if cost else None
    begin = read_time(start, "from") if start else None
    made = with_administration(
        lambda desk: desk.prices(operator()).set_price(
            model, amounts, costs=costs, effective_from=begin
        )
    )
    show(
        {"version": made.version, "model": model, "effective_from": made.effective_from},
        as_json=as_json,
    )


def _amounts(stated: Sequence[str]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for each in stated:
        name, _, amount = each.partition("=")
        try:
            found[name] = Decimal(amount)
        except InvalidOperation as err:
            raise InvalidArgument(f"{each!r} is not UNIT=AMOUNT.", field="prices") from err
    return found


def _book(book: PriceBook) -> list[Record]:
    models = sorted({*book.prices, *book.costs})
    return [
        {"model": model, "version": book.versions.get(model, book.version), **line}
        for model in models
        for line in _lines(book.prices.get(model, {}), book.costs.get(model, {}))
    ]


def _history(version: PriceVersion) -> list[Record]:
    named: Record = {"version": version.version, "effective_from": version.effective_from}
    if version.model is not None and version.model not in version.prices:
        back = "the catalogue's"
        return [{**named, "model": version.model, "unit": back, "price": None, "cost": None}]
    return [
        {**named, "model": model, **line}
        for model in sorted({*version.prices, *version.costs})
        for line in _lines(version.prices.get(model, {}), version.costs.get(model, {}))
    ]


def _lines(prices: ModelPrices, costs: ModelPrices) -> list[Record]:
    names = sorted({*prices, *costs})
    return [
        {"unit": name, "price": prices.get(name, Decimal()), "cost": costs.get(name, Decimal())}
        for name in names
    ]
