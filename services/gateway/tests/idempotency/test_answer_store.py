"""The store of answers: each key runs once, whatever happens, on SQLite and PostgreSQL."""

import asyncio
from datetime import timedelta

from answers import HEADERS, keep, read, refusal, totals

from atrium_gateway.idempotency.recorder import PIECE_BYTES

DAY = timedelta(hours=24)
SECOND = timedelta(seconds=1)


async def test_an_answer_is_given_again_byte_for_byte(store, attempt):
    body = bytes(range(256)) * 4097  # several pieces and a rest
    assert len(body) > 3 * PIECE_BYTES
    first = attempt()
    assert await store.claim(first) is None
    assert await keep(store, first, body, status=201)
    again = await store.claim(attempt())
    assert (again.status, again.headers, again.size) == (201, HEADERS, len(body))
    assert again.request_id == first.request_id
    assert await read(store, again) == body


async def test_an_empty_answer_is_an_answer(store, attempt):
    first = attempt()
    await store.claim(first)
    await keep(store, first, b"")
    again = await store.claim(attempt())
    assert again.size == 0
    assert await read(store, again) == b""


async def test_another_body_is_refused_at_any_time(store, attempt):
    first = attempt(body=b"one")
    await store.claim(first)
    assert await refusal(store.claim(attempt(body=b"two"))) == "IDEMPOTENCY_KEY_REUSED"
    await keep(store, first)
    assert await refusal(store.claim(attempt(body=b"two"))) == "IDEMPOTENCY_KEY_REUSED"


async def test_a_running_request_is_waited_for(store, attempt):
    await store.claim(attempt())
    assert await refusal(store.claim(attempt())) == "IDEMPOTENCY_REQUEST_IN_FLIGHT"


async def test_keys_belong_to_a_tenant_and_a_path(store, attempt):
    for other in (attempt(), attempt(of="other-of-" + attempt().tenant), attempt(path="/y")):
        assert await store.claim(other) is None


async def test_a_released_key_is_new(store, attempt, engine, tenant):
    first = attempt()
    await store.claim(first)
    assert await store.release(first)
    assert await totals(engine, tenant) == (0, 0)
    assert await store.claim(attempt(body=b"two")) is None


async def test_a_forgone_answer_is_told_and_does_not_run_again(store, attempt):
    first = attempt()
    await store.claim(first)
    assert await store.forgo(first)
    assert await refusal(store.claim(attempt())) == "IDEMPOTENCY_ANSWER_NOT_KEPT"


async def test_a_dead_process_holds_its_key_until_the_lease_ends(store, attempt, clock):
    dead = attempt()
    await store.claim(dead)
    clock.advance(store.bounds.lease - SECOND)
    assert await refusal(store.claim(attempt())) == "IDEMPOTENCY_REQUEST_IN_FLIGHT"
    clock.advance(SECOND)
    second = attempt(body=b"two")
    assert await store.claim(second) is None
    # The dead one comes back to life: it has lost its key and changes nothing.
    assert not await store.renew(dead)
    assert not await keep(store, dead, b"late")
    assert not await store.release(dead)
    assert not await store.forgo(dead)
    assert await keep(store, second, b"in time")
    again = await store.claim(attempt(body=b"two"))
    assert await read(store, again) == b"in time"


async def test_a_renewed_lease_lasts(store, attempt, clock):
    running = attempt()
    await store.claim(running)
    for _ in range(5):
        clock.advance(store.bounds.lease - SECOND)
        assert await store.renew(running)
    assert await refusal(store.claim(attempt())) == "IDEMPOTENCY_REQUEST_IN_FLIGHT"
    assert await keep(store, running)


async def test_answers_are_forgotten_after_a_day(store, attempt, clock, engine, tenant):
    first = attempt()
    await store.claim(first)
    await keep(store, first, b"old")
    clock.advance(DAY - SECOND)
    assert await read(store, await store.claim(attempt())) == b"old"
    clock.advance(SECOND)
    second = attempt(body=b"two")
    assert await store.claim(second) is None
    await keep(store, second, b"newer")
    assert await read(store, await store.claim(attempt(body=b"two"))) == b"newer"
    assert await totals(engine, tenant) == (1, 5)


async def test_the_sweep_forgets_what_has_ended_and_nothing_else(
    store, attempt, clock, engine, tenant
):
    for number in range(30):
        done = attempt(f"old-{number}")
        await store.claim(done)
        if number % 3:
            await keep(store, done, b"x" * number)
    clock.advance(DAY)
    young, running = attempt("young"), attempt("running")
    await store.claim(young)
    await keep(store, young, b"yes")
    await store.claim(running)
    while await store.sweep(at_once=7):
        pass
    assert await totals(engine, tenant) == (2, 3)
    assert await read(store, await store.claim(attempt("young"))) == b"yes"


async def test_a_large_answer_is_not_kept(store_of, attempt, engine, tenant):
    store = store_of(answer_bytes=10)
    first = attempt()
    await store.claim(first)
    assert await keep(store, first, b"x" * 11)
    assert await refusal(store.claim(attempt())) == "IDEMPOTENCY_ANSWER_NOT_KEPT"
    assert await totals(engine, tenant) == (1, 0)


async def test_a_tenant_has_so_many_bytes(store_of, attempt, engine, tenant, clock):
    store = store_of(tenant_bytes=25)
    for number in range(3):
        one = attempt(str(number))
        await store.claim(one)
        await keep(store, one, b"x" * 10)
    assert await totals(engine, tenant) == (3, 20)
    assert await refusal(store.claim(attempt("2"))) == "IDEMPOTENCY_ANSWER_NOT_KEPT"
    clock.advance(DAY)
    while await store.sweep():
        pass
    assert await totals(engine, tenant) == (0, 0)


async def test_a_tenant_has_so_many_keys_and_others_are_free(store_of, attempt, engine, tenant):
    store = store_of(tenant_keys=3)
    for number in range(3):
        await store.claim(attempt(str(number)))
    assert await refusal(store.claim(attempt("3"))) == "IDEMPOTENCY_KEYS_EXHAUSTED"
    assert await totals(engine, tenant) == (3, 0)
    assert await store.claim(attempt("3", of="free-" + tenant)) is None


async def test_of_fifty_at_once_one_runs(store, attempt, engine, tenant):
    tries = [attempt() for _ in range(50)]
    found = await asyncio.gather(*(refusal(store.claim(one)) for one in tries))
    assert found.count(None) == 1
    assert found.count("IDEMPOTENCY_REQUEST_IN_FLIGHT") == 49
    assert await totals(engine, tenant) == (1, 0)


async def test_of_fifty_at_once_after_a_crash_one_runs(store, attempt, clock, engine, tenant):
    await store.claim(attempt())
    clock.advance(store.bounds.lease)
    found = await asyncio.gather(*(refusal(store.claim(attempt())) for _ in range(50)))
    assert found.count(None) == 1
    assert await totals(engine, tenant) == (1, 0)


async def test_a_bound_holds_for_fifty_at_once(store_of, attempt, engine, tenant):
    store = store_of(tenant_keys=20)
    claims = (refusal(store.claim(attempt(str(number)))) for number in range(50))
    found = await asyncio.gather(*claims)
    assert found.count(None) == 20
    assert await totals(engine, tenant) == (20, 0)


async def test_a_forgotten_tenant_leaves_nothing(store, attempt, engine, tenant):
    first = attempt()
    await store.claim(first)
    await keep(store, first, b"secret")
    await store.forget(tenant)
    assert await totals(engine, tenant) == (0, 0)
    assert await store.claim(attempt()) is None
