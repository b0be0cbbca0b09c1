"""What a budget still buys: as much as it pays for, and not one unit more."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from atrium_common.domain import Usage
from atrium_common.errors import LimitViolation, QuotaExceeded
from atrium_gateway.quota.limits import Unit
from atrium_gateway.quota.measure import NANO_PER_COUNT, units_left, work_left
from atrium_gateway.usage.price import PriceBook
from atrium_gateway.usage.records import units_of


def refused(**left: int) -> QuotaExceeded:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    violations = tuple(
        LimitViolation(unit, timedelta(days=1), 10**9, remaining, now, "tenant:acme")
        for unit, remaining in left.items()
    )
    return QuotaExceeded("full", violations=violations, reason="QUOTA_EXHAUSTED", retry_after=None)


@given(
    st.integers(0, 100_000),
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.decimals(0, 100, places=2),
    st.decimals(0, 100, places=2),
    st.decimals(0, Decimal("0.01"), places=4),
)
def test_a_budget_buys_what_it_pays_for_and_no_more(budget, read, written, input_, output, fee):
    prices = {"million_input_tokens": input_, "million_output_tokens": output, "request": fee}
    book = PriceBook(1, {"m": prices})
    bound = Usage(input_tokens=read, output_tokens=written)

    def price(usage: Usage) -> int:
        return book.cost("m", units_of(usage))[0]

    def cost_of(tokens: int) -> int:
        first = min(read, tokens)
        return price(replace(bound, input_tokens=first, output_tokens=tokens - first))

    left = work_left(refused(cost=budget), bound, Unit.TOKENS, price)
    assert left is not None
    assert left == 0 or cost_of(left) <= budget * NANO_PER_COUNT
    if left < read + written:
        assert cost_of(left + 1) > budget * NANO_PER_COUNT


def test_the_least_of_all_limits_is_left_and_other_units_can_not_be_fitted():
    bound = Usage(input_tokens=10, output_tokens=90)

    def price(usage: Usage) -> int:
        return 1000 * (usage.input_tokens + usage.output_tokens)

    def left(**violations: int) -> int | None:
        return work_left(refused(**violations), bound, Unit.TOKENS, price)

    assert left(tokens=7) == units_left(refused(tokens=7), Unit.TOKENS) == 7
    assert left(cost=40) == 40
    assert left(cost=40, tokens=30) == 30
    assert left(cost=20, tokens=30) == 20
    assert left(cost=20, requests=0) is None
    assert left(requests=0) is None
