"""Prices: exact, versioned, and never changed by a settlement."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_gateway.database import open_engine, upgrade
from atrium_gateway.usage.price import NANO, PriceBook, catalogue_prices
from atrium_gateway.usage.price_store import PriceRepository
from atrium_gateway.usage.records import Units

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def book(**prices: str) -> PriceBook:
    return PriceBook(3, {"m": {name: Decimal(price) for name, price in prices.items()}})


def test_tokens_audio_and_requests_add_up_exactly():
    prices = book(
        request="0.001",
        million_input_tokens="0.15",
        million_output_tokens="0.60",
        input_audio_minute="0.006",
    )
    units = Units(input_tokens=1000, output_tokens=500, input_audio_ms=90_000)
    expected = Decimal("0.001") + Decimal("0.00015") + Decimal("0.0003") + Decimal("0.009")
    assert prices.cost("m", units) == (expected * NANO, 3)
    assert prices.cost("m", Units(), requests=0) == (0, 3)


def test_cached_tokens_cost_their_own_price_where_there_is_one():
    units = Units(input_tokens=10, cached_input_tokens=4)
    full, half = "1000000", "500000"
    assert book(million_input_tokens=full).cost("m", units)[0] == 10 * NANO
    cheap = book(million_input_tokens=full, million_cached_input_tokens=half)
    assert cheap.cost("m", units)[0] == 8 * NANO
    free = book(million_input_tokens=full, million_cached_input_tokens="0")
    assert free.cost("m", units)[0] == 6 * NANO


def test_a_model_without_prices_is_free_and_says_so():
    assert book(request="1").cost("other", Units(input_tokens=5)) == (0, 0)


@given(st.integers(0, 10**7), st.decimals("0", "100", places=6))
def test_a_cost_is_within_half_a_billionth_of_the_true_one(tokens, price):
    prices = PriceBook(1, {"m": {"million_input_tokens": price}})
    cost, _ = prices.cost("m", Units(input_tokens=tokens))
    assert abs(cost - price * tokens / 10**6 * NANO) <= Decimal("0.5")


def test_no_cost_is_too_large_for_the_ledger():
    cost, _ = book(million_input_tokens="1e8").cost("m", Units(input_tokens=1 << 60))
    assert cost * 50 < 1 << 63


@pytest.mark.parametrize(
    "prices",
    [{"gold": "1"}, {"request": "-1"}, {"request": "NaN"}, {"image": "1e9"}, {"page": "1e-99"}],
)
def test_a_price_that_makes_no_sense_is_refused(prices):
    with pytest.raises(ValueError, match="price"):
        book(**prices)


async def test_a_new_version_is_made_only_when_prices_change(tmp_path):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    await upgrade(engine)
    books = PriceRepository(engine)
    dear, cheap = ({"m": {"request": Decimal(price)}} for price in ("2.50", "1"))
    versions = []
    for prices in ({}, dear, dear, cheap, dear, {}, {}):
        await books.put_catalogue(prices, {}, now=NOW)
        versions.append(await books.newest())
    assert versions == [0, 1, 1, 2, 3, 4, 4]
    await engine.dispose()


def test_the_catalogue_states_the_prices(catalogue):
    assert catalogue_prices(catalogue) == {
        "m": {"million_input_tokens": Decimal("0.15"), "million_output_tokens": Decimal("0.6")}
    }
