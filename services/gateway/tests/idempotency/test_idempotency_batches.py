"""Requests that come at once share transactions, and each ends as it would alone."""

import asyncio
import itertools
from collections import Counter
from datetime import timedelta

import pytest
from answers import keep, read, refusal, totals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrium_gateway.database import open_engine
from atrium_gateway.idempotency.domain import Bounds
from atrium_gateway.idempotency.store import AnswerStore

IN_FLIGHT, REUSED = "IDEMPOTENCY_REQUEST_IN_FLIGHT", "IDEMPOTENCY_KEY_REUSED"
EXHAUSTED = "IDEMPOTENCY_KEYS_EXHAUSTED"


@pytest.fixture
def begun(store):
    """Grows by one with each transaction that the store begins for requests."""
    seen = []
    transaction = store._line.transaction

    def begin():
        seen.append(1)
        return transaction()

    store._line.transaction = begin
    return seen


async def test_a_hundred_requests_share_few_transactions(store, attempt, begun, engine, tenant):
    tries = [attempt(str(number)) for number in range(100)]
    assert await asyncio.gather(*map(store.claim, tries)) == [None] * 100
    assert await asyncio.gather(*(keep(store, one) for one in tries)) == [True] * 100
    assert len(begun) <= 6
    assert await totals(engine, tenant) == (100, 200)


async def test_a_batch_of_tenants_is_counted_by_tenant(store, attempt, engine, tenant):
    tenants = [f"{tenant}-{number}" for number in range(10)]
    tries = [attempt(str(number), of=one) for number in range(3) for one in tenants]
    await asyncio.gather(*map(store.claim, tries))
    ends = (
        keep(store, one, b"x" * 7) if number % 3 else store.release(one)
        for number, one in enumerate(tries)
    )
    assert all(await asyncio.gather(*ends))
    for one in tenants:
        kept = sum(number % 3 > 0 for number, each in enumerate(tries) if each.tenant == one)
        assert await totals(engine, one) == (kept, 7 * kept)


async def test_in_a_batch_another_body_is_refused_and_the_same_waits(store, attempt):
    bodies = [b"one", b"one", b"two", b"one"]
    found = await asyncio.gather(*(refusal(store.claim(attempt(body=body))) for body in bodies))
    assert found == [None, IN_FLIGHT, REUSED, IN_FLIGHT]


async def test_a_tenant_at_its_bound_leaves_the_batch_to_others(store_of, attempt, engine, tenant):
    store = store_of(tenant_keys=3, tenant_bytes=25)
    other = f"other-{tenant}"
    mine = [attempt(str(number)) for number in range(5)]
    theirs = [attempt(str(number), of=other) for number in range(3)]
    found = await asyncio.gather(*(refusal(store.claim(one)) for one in (*mine, *theirs)))
    assert found == [None] * 3 + [EXHAUSTED] * 2 + [None] * 3
    sizes = (10, 20, 15)  # the second has no room, the third has
    answers = zip((*mine[:3], *theirs), (*sizes, 8, 8, 8), strict=True)
    assert all(await asyncio.gather(*(keep(store, one, b"x" * size) for one, size in answers)))
    assert await totals(engine, tenant) == (3, 25)
    assert await totals(engine, other) == (3, 24)
    assert await refusal(store.claim(attempt("1"))) == "IDEMPOTENCY_ANSWER_NOT_KEPT"
    assert await read(store, await store.claim(attempt("2"))) == b"x" * 15


async def test_what_ends_in_a_batch_makes_room_in_it(store_of, attempt, engine, tenant):
    store = store_of(tenant_keys=1)
    first = attempt("first")
    await store.claim(first)
    claimed, released = await asyncio.gather(store.claim(attempt("next")), store.release(first))
    assert (claimed, released) == (None, True)
    assert await totals(engine, tenant) == (1, 0)


async def test_ended_keys_are_taken_over_in_a_batch(store, attempt, clock, engine, tenant):
    for number in range(4):
        one = attempt(str(number))
        await store.claim(one)
        await keep(store, one, b"old")
    clock.advance(store.bounds.kept)
    again = [attempt(str(number % 4), b"new") for number in range(8)]
    found = await asyncio.gather(*(refusal(store.claim(one)) for one in again))
    assert found == [None] * 4 + [IN_FLIGHT] * 4
    assert await totals(engine, tenant) == (4, 0)


async def test_one_that_the_database_refuses_fails_alone(store, attempt, engine, tenant):
    """PostgreSQL has no NUL in texts; SQLite takes it."""
    tries = [attempt("0"), attempt("1", of="no\0tenant"), attempt("2")]
    found = await asyncio.gather(*(refusal(store.claim(one)) for one in tries))
    refused = None if engine.dialect.name == "sqlite" else "UNAVAILABLE"
    assert found == [None, refused, None]
    assert await totals(engine, tenant) == (2, 0)


async def test_a_client_that_leaves_while_it_waits_leaves_no_key(store, attempt, engine, tenant):
    claims = [asyncio.ensure_future(store.claim(attempt(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    for claim in claims[::2]:
        claim.cancel()
    await asyncio.gather(*claims, return_exceptions=True)
    await store.claim(attempt("last"))  # a batch later than those that give back
    await store.close()
    assert await totals(engine, tenant) == (11, 0)


async def test_a_database_that_is_away_refuses_everyone(attempt, clock, tmp_path):
    nobody = open_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    store = AnswerStore(nobody, Bounds(), clock=clock)
    one = attempt()
    asked = (*(store.claim(attempt(str(number))) for number in range(20)), store.release(one))
    found = await asyncio.gather(*map(refusal, (*asked, keep(store, one), store.renew(one))))
    assert found == ["UNAVAILABLE"] * 23
    await store.close()
    await nobody.dispose()


async def test_a_connection_that_broke_is_made_anew(store, attempt, engine, tenant):
    if engine.dialect.name == "postgresql":
        assert await store.claim(attempt("0")) is None
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    await asyncio.sleep(0.1)  # one that is in use at the moment is not looked at
    assert await store.claim(attempt("1")) is None


KEYS, MOST_KEYS, MOST_BYTES, LEASE = 3, 2, 40, 60
STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, KEYS - 1), st.booleans()), max_size=6),
        st.lists(
            st.tuples(st.sampled_from(["keep", "forgo", "release", "renew"]), st.integers(0, 9)),
            max_size=4,
        ),
        st.sampled_from([0, 0, 59, 60, 86_400]),
    ),
    max_size=8,
)
_tenants = itertools.count()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
async def test_two_gateways_never_give_a_key_twice(engine, store_of, attempt, clock, steps):
    """Whatever two gateways ask at once: a key has one holder, and no bound is passed."""
    bounds = {"tenant_keys": MOST_KEYS, "tenant_bytes": MOST_BYTES}
    stores, tenant = (store_of(**bounds), store_of(**bounds)), f"pair-{next(_tenants)}"
    holders: dict[int, object] = {}
    until: dict[int, float] = {}
    tries: list[tuple[int, object]] = []
    for claims, endings, seconds in steps:
        asked = [(key, attempt(str(key), of=tenant), stores[second]) for key, second in claims]
        chosen = [(name, *tries[which % len(tries)]) for name, which in endings if tries]
        closed = {id(one): key for _, key, one in chosen if holders.get(key) is one}
        answers = await asyncio.gather(
            *(refusal(_claimed(store, one)) for _, one, store in asked),
            *(_end(stores[number % 2], *end) for number, end in enumerate(chosen)),
        )
        taken = [(k, one) for (k, one, _), said in zip(asked, answers, strict=False) if not said]
        ended = Counter[int]()
        for (name, key, one), said in zip(chosen, answers[len(asked) :], strict=True):
            assert not (said and id(one) not in closed)
            if said and name == "renew":
                until[key] = clock() + LEASE
            elif said:
                ended[id(one)] += 1
                holders.pop(key, None)
        assert all(count == 1 for count in ended.values())
        for key, one in taken:
            assert key not in holders or until[key] <= clock()
            holders[key], until[key] = one, clock() + LEASE
        count, size = await totals(engine, tenant)
        assert count <= MOST_KEYS
        assert size <= MOST_BYTES
        tries += taken
        clock.advance(timedelta(seconds=seconds))
    for store in stores:
        await store.close()


async def _claimed(store, one):
    found = await store.claim(one)
    if found is not None:
        raise Replayed


class Replayed(Exception):
    reason = "replayed"


async def _end(store, name, _, one):
    return await (keep(store, one, b"x" * 15) if name == "keep" else getattr(store, name)(one))
