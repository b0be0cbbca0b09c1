"""The price book over time: what is charged is what was in force at the admission."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common.errors import InvalidArgument
from atrium_gateway.usage.billing import close_record
from atrium_gateway.usage.price import NANO
from atrium_gateway.usage.price_list import PriceList, PriceVersion
from atrium_gateway.usage.price_store import NOTICE, PriceRepository
from atrium_gateway.usage.price_watch import watched_prices
from atrium_gateway.usage.records import OpenRecord, Units

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = timedelta(days=1)
ONE_IMAGE = Units(images=1)


def image(price: str, *models: str) -> dict[str, dict[str, Decimal]]:
    return {model: {"image": Decimal(price)} for model in models or ("m",)}


def ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def charged(prices: PriceList, time: datetime, model: str = "m") -> tuple[Decimal, int]:
    cost, version = prices.at(ms(time)).cost(model, ONE_IMAGE)
    return cost / NANO, version


@pytest.fixture
def books(engine) -> PriceRepository:
    return PriceRepository(engine)


async def listed(books: PriceRepository) -> PriceList:
    return PriceList(await books.versions())


async def test_an_operators_price_holds_from_its_date_through_changes_of_the_catalogue(books):
    await books.put_catalogue(image("1", "m", "n"), image("0.5"), now=NOW)
    set_ = await books.set_price(
        "m", {"image": Decimal(7)}, effective_from=NOW + 2 * LATER, now=NOW
    )
    await books.put_catalogue(image("3", "m", "n"), image("0.6"), now=NOW + LATER)
    await books.set_price("m", None, effective_from=NOW + 3 * LATER, now=NOW + LATER)
    prices = await listed(books)
    assert charged(prices, NOW - LATER) == (0, 0)
    assert charged(prices, NOW) == (1, 1)
    assert charged(prices, NOW + LATER) == (3, 3)
    assert charged(prices, NOW + 2 * LATER) == (7, set_.version)
    assert charged(prices, NOW + 2 * LATER, "n") == (3, 3)
    assert charged(prices, NOW + 3 * LATER) == (3, 3)
    # The provider charges what it did: the operator said nothing of that.
    assert prices.at(ms(NOW + 2 * LATER)).provider_cost("m", ONE_IMAGE) == Decimal("0.6") * NANO


async def test_an_event_is_priced_by_its_admission_however_late_it_ends(books):
    await books.put_catalogue(image("1"), image("0.25"), now=NOW)
    await books.put_catalogue(image("9"), {}, now=NOW + LATER)
    start = ms(NOW + LATER) - 1
    record = OpenRecord("id", "t", "u", "text_to_image", "m", "x", "r", start, ONE_IMAGE)
    event = close_record(
        record, ONE_IMAGE, "completed", ended_ms=start + 9999, prices=await listed(books)
    )
    assert (event.cost_nano, event.price_version) == (NANO, 1)
    assert event.provider_cost_nano == NANO / 4


async def test_a_price_for_what_was_admitted_already_is_refused(books):
    for early in (timedelta(), NOTICE - timedelta(milliseconds=1), -LATER):
        with pytest.raises(InvalidArgument, match="not earlier"):
            await books.set_price("m", {}, effective_from=NOW + early, now=NOW)
    for wrong in ({"gold": Decimal(1)}, {"image": Decimal(-1)}, {"image": Decimal("NaN")}):
        with pytest.raises(InvalidArgument, match="can't be"):
            await books.set_price("m", wrong, effective_from=NOW + NOTICE, now=NOW)
        with pytest.raises(InvalidArgument, match="can't be"):
            await books.set_price("m", {}, costs=wrong, effective_from=NOW + NOTICE, now=NOW)
    assert await books.newest() == 0


async def test_many_who_set_prices_at_once_get_versions_of_their_own(books):
    made = await asyncio.gather(
        *(
            books.set_price(f"m{n}", {"image": Decimal(n)}, effective_from=NOW + LATER, now=NOW)
            for n in range(3)
        )
    )
    assert sorted(each.version for each in made) == [1, 2, 3]
    assert [each.version for each in await books.versions()] == [1, 2, 3]


async def test_a_running_gateway_learns_of_prices_before_they_hold(books):
    await books.put_catalogue(image("1"), {}, now=NOW)
    async with watched_prices(books, interval=0.01) as prices:
        await books.set_price("m", {"image": Decimal(2)}, effective_from=NOW + LATER, now=NOW)
        async with asyncio.timeout(10):
            while prices.newest != 2:  # noqa: ASYNC110 - what is tested polls, too
                await asyncio.sleep(0.01)
        assert charged(prices, NOW) == (1, 1)
        assert charged(prices, NOW + LATER) == (2, 2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "m", "n"]),  # the catalogue's, or an operator's for a model
            st.integers(0, 9),
            st.one_of(st.none(), st.integers(0, 5)),
        ),
        max_size=12,
    ),
    st.integers(0, 10),
)
def test_the_last_to_take_effect_wins_an_operator_over_the_catalogue(rows, day):
    versions = []
    for number, (model, start, price) in enumerate(rows, start=1):
        stated = {} if price is None else image(str(price), *([model] if model else ["m", "n"]))
        versions.append(PriceVersion(number, NOW + start * LATER, model, stated))
    held = [each for each in versions if each.effective_from <= NOW + day * LATER]
    held.sort(key=lambda each: (each.effective_from, each.version))
    for model in ("m", "n"):
        own = [each for each in held if each.model == model][-1:]
        catalogue = [each for each in held if each.model is None][-1:]
        source = [each for each in [*own, *catalogue] if model in each.prices][:1]
        expected = (source[0].prices[model]["image"], source[0].version) if source else (0, 0)
        assert charged(PriceList(versions), NOW + day * LATER, model) == expected
