"""The promises of `FairOrder`: fair by weight, nobody starves, leaving leaves no trace."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from atrium_common.work.fair import FairOrder, Waiting

costs = st.floats(min_value=0.01, max_value=100.0)
weights = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 10.0])


def fill(order: FairOrder[int], tenant: str, weight: float, costs_: list[float]) -> None:
    for number, cost in enumerate(costs_):
        order.push(number, tenant=tenant, weight=weight, cost=cost)


@given(
    tenants=st.lists(
        st.tuples(weights, st.lists(costs, min_size=8, max_size=8)), min_size=2, max_size=6
    ),
    taken=st.integers(1, 60),
)
def test_while_all_wait_shares_differ_by_one_request_each(
    tenants: list[tuple[float, list[float]]], taken: int
) -> None:
    order: FairOrder[int] = FairOrder()
    endless = {str(i): itertools.cycle(costs_) for i, (_, costs_) in enumerate(tenants)}
    weight = {str(i): w for i, (w, _) in enumerate(tenants)}
    largest = {str(i): max(costs_) for i, (_, costs_) in enumerate(tenants)}
    for tenant, stream in endless.items():
        fill(order, tenant, weight[tenant], [next(stream), next(stream)])
    given_ = dict.fromkeys(endless, 0.0)
    for _ in range(taken):
        place = order.pop()
        given_[place.tenant] += place.cost
        fill(order, place.tenant, weight[place.tenant], [next(endless[place.tenant])])
        for f, g in itertools.combinations(endless, 2):
            apart = abs(given_[f] / weight[f] - given_[g] / weight[g])
            bound = largest[f] / weight[f] + largest[g] / weight[g]
            assert apart <= bound * (1 + 1e-9)


@given(
    floods=st.lists(st.lists(costs, min_size=1, max_size=30), min_size=1, max_size=5),
    before=st.integers(0, 40),
)
def test_a_newcomer_waits_for_at_most_one_request_of_each_other(
    floods: list[list[float]], before: int
) -> None:
    order: FairOrder[int] = FairOrder()
    for number, flood in enumerate(floods):
        fill(order, f"flood{number}", 1.0, flood)
    for _ in range(min(before, len(order))):
        order.pop()
    order.push(0, tenant="new", weight=1.0, cost=1000.0)
    ahead: list[str] = []
    while (place := order.pop()).tenant != "new":
        ahead.append(place.tenant)
    assert len(ahead) == len(set(ahead))


@given(
    requests=st.lists(
        st.tuples(st.sampled_from("abc"), weights, costs, st.booleans()), max_size=30
    ),
    chance=st.randoms(use_true_random=False),
)
def test_who_leaves_leaves_no_trace(
    requests: list[tuple[str, float, float, bool]], chance: random.Random
) -> None:
    """Removed requests change neither order nor shares of the others."""
    with_leavers: FairOrder[int] = FairOrder()
    without: FairOrder[int] = FairOrder()
    leavers: list[Waiting[int]] = []
    for number, (tenant, weight, cost, leaves) in enumerate(requests):
        place = with_leavers.push(number, tenant=tenant, weight=weight, cost=cost)
        if leaves:
            leavers.append(place)
        else:
            without.push(number, tenant=tenant, weight=weight, cost=cost)
    chance.shuffle(leavers)
    for place in leavers:
        assert with_leavers.remove(place)
        assert not with_leavers.remove(place)
    assert len(with_leavers) == len(without)
    drained = [with_leavers.pop().item for _ in range(len(with_leavers))]
    assert drained == [without.pop().item for _ in range(len(without))]


@given(
    requests=st.lists(st.tuples(st.sampled_from("abcd"), weights, costs), max_size=30),
    popped=st.integers(0, 30),
)
def test_in_order_foretells_pop(requests: list[tuple[str, float, float]], popped: int) -> None:
    order: FairOrder[int] = FairOrder()
    half = len(requests) // 2
    for number, (tenant, weight, cost) in enumerate(requests):
        if number == half:
            for _ in range(min(popped, len(order))):
                order.pop()
        order.push(number, tenant=tenant, weight=weight, cost=cost)
    foretold = [place.item for place in order.in_order()]
    assert [order.pop().item for _ in range(len(order))] == foretold


def test_a_tenants_own_requests_keep_their_order() -> None:
    order: FairOrder[int] = FairOrder()
    fill(order, "a", 1.0, [5.0, 1.0, 3.0])
    assert [order.pop().item for _ in range(3)] == [0, 1, 2]


def test_twice_the_weight_is_twice_the_share() -> None:
    order: FairOrder[int] = FairOrder()
    fill(order, "light", 1.0, [1.0] * 60)
    fill(order, "heavy", 2.0, [1.0] * 60)
    first = [order.pop().tenant for _ in range(60)]
    assert 39 <= first.count("heavy") <= 41


def test_idle_time_is_not_saved_up() -> None:
    """A tenant that was away does not catch up on what it did not ask for."""
    order: FairOrder[int] = FairOrder()
    fill(order, "busy", 1.0, [1.0] * 40)
    for _ in range(20):
        order.pop()
    fill(order, "back", 1.0, [1.0] * 20)
    first = [order.pop().tenant for _ in range(10)]
    assert first.count("back") in (5, 6)


def test_the_newest_of_the_most_crowding_gives_way() -> None:
    order: FairOrder[int] = FairOrder()
    fill(order, "flood", 1.0, [1.0] * 4)
    fill(order, "other", 1.0, [1.0])
    assert (order.most_crowding().tenant, order.most_crowding().item) == ("flood", 3)
    fill(order, "big", 4.0, [1.0] * 5)
    assert order.most_crowding().tenant == "flood"


def test_tenants_that_caught_up_are_forgotten() -> None:
    order: FairOrder[int] = FairOrder()
    for number in range(1000):
        order.push(number, tenant=f"tenant{number}", weight=1.0, cost=1.0)
        order.push(number, tenant="steady", weight=1.0, cost=1.0)
        order.pop()
        order.pop()
    assert len(order._flows) <= 3
