"""The promises of `StepOrder` and `Budget`, counted in ticks."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from atrium_diffusion.batcher.budget import REGROW_TICKS, BatchLimits, Budget
from atrium_diffusion.batcher.order import PATIENCE, Contender, StepOrder

Order = StepOrder[Contender]
SIZES = {"small": 16, "large": 64}
jobs = st.tuples(st.integers(1, 12), st.sampled_from(sorted(SIZES)), st.integers(-2, 2))


def contender(
    tenant: str, steps: int, group: str = "small", priority: int = 0, weight: float = 1.0
) -> Contender:
    pixels = SIZES[group]
    return Contender(
        tenant=tenant,
        weight=weight,
        priority=priority,
        group=group,
        pixels=pixels,
        load=2 * pixels,
        steps_left=steps,
    )


def added(order: Order, tenant: str, steps: int, *more: object, **options: object) -> Contender:
    picture = contender(tenant, steps, *more, **options)  # type: ignore[arg-type]
    order.add(picture)
    return picture


def tick(order: Order, *, places: int = 8, begins: int = 2) -> list[Contender]:
    batch = order.choose(lambda pictures, _: pictures <= places, begins=begins)
    for picture in batch:
        picture.begun = True
    order.charge(batch)
    for picture in batch:
        if not picture.steps_left:
            order.remove(picture)
    return batch


def ticks_until(order: Order, picture: Contender, **options: int) -> int:
    """Ticks up to the one in which the picture takes a step, that one included."""
    return next(i for i in itertools.count(1) if picture in tick(order, **options))


def test_a_short_job_comes_before_the_long_ones_of_its_tenant() -> None:
    for group in SIZES:
        order = Order()
        for _ in range(8):
            added(order, "a", 50)
        for _ in range(10):
            tick(order)
        assert ticks_until(order, added(order, "a", 4, group)) == 1


def test_priority_comes_before_length_within_a_tenant_only() -> None:
    order = Order()
    urgent, short = added(order, "a", 50, priority=2), added(order, "a", 1)
    other = added(order, "b", 50, priority=-2)
    assert tick(order, places=2) == [urgent, other]
    assert ticks_until(order, short, places=1) > 1


@given(st.lists(jobs, min_size=200, max_size=200), st.integers(1, 40), jobs)
@settings(max_examples=25, deadline=None)
def test_a_flood_of_another_tenant_delays_nobody_new(
    flood: list[tuple[int, str, int]], before: int, first: tuple[int, str, int]
) -> None:
    order = Order()
    for job in flood:
        added(order, "flooder", *job)
    for _ in range(before):
        tick(order)
    assert ticks_until(order, added(order, "newcomer", *first)) == 1


@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.lists(jobs, min_size=1, max_size=20)), max_size=6),
    st.integers(0, 40),
    st.integers(1, 8),
    jobs,
)
@settings(max_examples=50, deadline=None)
def test_one_who_is_new_waits_for_a_tick_of_each_other_tenant_at_most(
    tenants: list[tuple[float, list[tuple[int, str, int]]]],
    before: int,
    places: int,
    first: tuple[int, str, int],
) -> None:
    order = Order()
    for number, (weight, theirs) in enumerate(tenants):
        for job in theirs:
            added(order, f"tenant {number}", *job, weight=weight)
    for _ in range(before):
        tick(order, places=places)
    newcomer = added(order, "newcomer", *first)
    assert ticks_until(order, newcomer, places=places) <= len(tenants) + 1


@given(
    st.integers(1, 3),
    st.sampled_from(sorted(SIZES)),
    st.lists(st.tuples(st.sampled_from("abc"), jobs), min_size=1, max_size=4),
    st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_none_starves(
    steps: int, group: str, flood: list[tuple[str, tuple[int, str, int]]], places: int
) -> None:
    # Its tenant and two others bring the same again at every tick, all of it preferred.
    order = Order()
    victim = added(order, "a", steps, group, -2)
    turns = PATIENCE + 1
    # A turn of one tenant costs at most `places` large steps; the others may take as many
    # pixel-steps in between, by one small step at a time.
    bound = steps * turns * (1 + 2 * places * SIZES["large"] // SIZES["small"])
    for _ in range(bound):
        if not victim.steps_left:
            return
        for tenant, job in flood:
            added(order, tenant, *job)
        tick(order, places=places, begins=1)
    raise AssertionError("the victim starved")


def test_the_oldest_takes_at_least_every_ninth_turn() -> None:
    order = Order()
    oldest = added(order, "a", 100, "large", -2)
    seen = []
    for _ in range(90):
        for _ in range(8):
            added(order, "a", 1, priority=2)
        seen.append(oldest in tick(order, begins=8))
    assert seen.count(True) == 10


@given(
    st.lists(
        st.tuples(st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.sampled_from(sorted(SIZES))),
        min_size=2,
        max_size=4,
    ),
    st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
def test_shares_follow_weights_within_a_batch(
    tenants: list[tuple[float, str]], places: int
) -> None:
    order = Order()
    for number, (weight, group) in enumerate(tenants):
        for _ in range(8):
            added(order, str(number), 10_000, group, weight=weight)
    used: Counter[str] = Counter()
    for _ in range(200):
        for picture in tick(order, places=places):
            used[picture.tenant] += picture.pixels
        for (f, one), (g, two) in itertools.combinations(enumerate(tenants), 2):
            apart = abs(used[str(f)] / one[0] - used[str(g)] / two[0])
            assert apart <= places * (SIZES[one[1]] / one[0] + SIZES[two[1]] / two[0]) + 1e-6


def test_a_place_that_nobody_else_could_use_is_not_held_against_a_tenant() -> None:
    order = Order()
    for _ in range(20):
        added(order, "busy", 1_000)
    added(order, "quiet", 1_000)
    for _ in range(100):
        batch = tick(order, begins=8)
        assert Counter(p.tenant for p in batch) == {"busy": 7, "quiet": 1}
    for _ in range(20):
        added(order, "quiet", 1_000)
    shares = Counter(p.tenant for _ in range(4) for p in tick(order, begins=8))
    assert shares["busy"] == shares["quiet"] == 16


def test_a_tenant_whose_short_job_is_of_another_size_leads_soon_and_wastes_no_place() -> None:
    # The shares are such that "a" has the smaller tag at every tick that both share.
    order = Order()
    for _ in range(8):
        added(order, "a", 1_000)
    added(order, "b", 1_000, weight=0.5)
    added(order, "b", 1_000, weight=0.5)
    for _ in range(7):
        tick(order, places=3)
    short = added(order, "b", 4, "large", weight=0.5)
    assert ticks_until(order, short, places=3) <= 3
    riders = [tick(order, places=12, begins=8) for _ in range(2)]
    assert any({p.tenant for p in batch} == {"a", "b"} for batch in riders)


def test_new_ones_begin_a_few_at_a_time_but_the_first_always() -> None:
    order = Order()
    for _ in range(6):
        added(order, "a", 50)
    assert [len(tick(order, begins=2)) for _ in range(4)] == [2, 4, 6, 6]


def test_the_first_one_is_chosen_even_if_nothing_fits() -> None:
    order = Order()
    for _ in range(3):
        added(order, "a", 50)
    assert len(order.choose(lambda pictures, load: False, begins=1)) == 1


def test_who_leaves_leaves_nothing_behind() -> None:
    order = Order()
    pictures = [added(order, str(i % 5), 3) for i in range(20)]
    tick(order)
    for picture in pictures:
        order.remove(picture)
        order.remove(picture)
    assert len(order) == 0
    assert order.choose(lambda pictures, load: True, begins=1) == []


def test_a_budget_is_the_estimate_until_memory_runs_out() -> None:
    budget = Budget(BatchLimits(max_batch=4, memory_bytes=1_000, bytes_per_pixel=10.0))
    assert budget.fits(4, 100)
    assert not budget.fits(5, 100)
    assert not budget.fits(1, 101)
    budget.shrink(80)
    assert budget.fits(4, 40)
    assert not budget.fits(1, 41)
    budget.shrink(40)
    for _ in range(REGROW_TICKS):
        assert not budget.fits(1, 21)
        budget.succeeded()
    assert budget.fits(1, 40)
    for _ in range(2 * REGROW_TICKS):
        budget.succeeded()
    assert budget.fits(4, 100)
    assert not budget.fits(4, 101)


def test_a_budget_without_an_estimate_learns_from_the_device_alone() -> None:
    budget = Budget(BatchLimits(max_batch=4))
    assert budget.fits(4, 10**12)
    budget.shrink(100)
    assert not budget.fits(1, 51)
    for _ in range(REGROW_TICKS):
        budget.succeeded()
    assert budget.fits(1, 100)
