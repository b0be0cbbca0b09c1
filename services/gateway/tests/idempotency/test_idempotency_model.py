"""Random operations in random order end as a simple model says; on both databases."""

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from answers import keep, read, refusal, totals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrium_common.errors import AtriumError

DAY = timedelta(hours=24)
LEASE = timedelta(seconds=60)
KEYS, MOST_KEYS, MOST_BYTES, MOST_ANSWER = 3, 2, 40, 25

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, KEYS - 1), st.integers(0, 1)),
        st.tuples(st.just("keep"), st.integers(0, 9), st.integers(0, 30)),
        st.tuples(st.just("release"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("forgo"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("renew"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("advance"), st.sampled_from([1, 59, 60, 86_399, 86_400]), st.just(0)),
        st.tuples(st.just("sweep"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@dataclass
class Line:
    """The model's view of a key."""

    body: int
    holder: object
    until: float
    state: str = "pending"
    size: int = 0


class Model:
    """What the store promises, in a dictionary."""

    def __init__(self, clock):
        self.clock = clock
        self.lines: dict[int, Line] = {}

    def claim(self, key, body, holder):
        line = self.lines.get(key)
        if line is None or line.until <= self.clock():
            # One that has ended makes room for itself, not for others: a sweep does that.
            if len(self.lines) - (line is not None) >= MOST_KEYS:
                return "IDEMPOTENCY_KEYS_EXHAUSTED"
            until = self.clock() + LEASE.total_seconds()
            self.lines[key] = Line(body, holder, until)
            return None
        if line.body != body:
            return "IDEMPOTENCY_KEY_REUSED"
        if line.state == "pending":
            return "IDEMPOTENCY_REQUEST_IN_FLIGHT"
        return line.size if line.state == "answered" else "IDEMPOTENCY_ANSWER_NOT_KEPT"

    def held(self, key, holder):
        line = self.lines.get(key)
        mine = line is not None and line.holder is holder and line.state == "pending"
        return line if mine else None

    def end(self, line, state, size=0):
        kept = sum(other.size for other in self.lines.values())
        fits = size <= MOST_ANSWER and kept + size <= MOST_BYTES
        line.state = state if fits else "unkept"
        line.size = size if line.state == "answered" else 0
        line.until = self.clock() + DAY.total_seconds()

    def sweep(self):
        now = self.clock()
        self.lines = {key: line for key, line in self.lines.items() if line.until > now}


_tenants = itertools.count()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(OPERATIONS)
async def test_any_sequence_ends_as_the_model_says(engine, store_of, attempt, clock, operations):
    store = store_of(tenant_keys=MOST_KEYS, tenant_bytes=MOST_BYTES, answer_bytes=MOST_ANSWER)
    model, tries, tenant = Model(clock), [], f"model-{next(_tenants)}"
    for name, what, more in operations:
        if name == "claim":
            one = attempt(str(what), b"%d" % more, of=tenant)
            tries.append((what, one))
            expected = model.claim(what, more, one)
            assert await _outcome(store, one) == expected
        elif name == "advance":
            clock.advance(timedelta(seconds=what))
        elif name == "sweep":
            model.sweep()
            while await store.sweep():
                pass
        elif tries:
            key, one = tries[what % len(tries)]
            await _held(store, model, name, key, one, more)
        assert (await totals(engine, tenant)) == (
            len(model.lines),
            sum(line.size for line in model.lines.values()),
        )
    clock.advance(DAY + LEASE)
    while await store.sweep():
        pass


async def _outcome(store, one):
    """``None`` if it may run, the size of a replayed answer, or why it is refused."""
    try:
        found = await store.claim(one)
    except AtriumError as err:
        return err.reason
    if found is None:
        return None
    assert await read(store, found) == b"x" * found.size
    return found.size


async def _held(store, model, name, key, one, size):
    """Does what only the holder of a key may do, in the store and in the model."""
    line = model.held(key, one)
    if name == "keep":
        assert await keep(store, one, b"x" * size) is (line is not None)
        if line:
            model.end(line, "answered", size)
    elif name == "forgo":
        assert await store.forgo(one) is (line is not None)
        if line:
            model.end(line, "unkept")
    elif name == "release":
        assert await store.release(one) is (line is not None)
        if line:
            del model.lines[key]
    else:
        assert await store.renew(one) is (line is not None)
        if line:
            line.until = model.clock() + LEASE.total_seconds()


async def test_requests_at_once_never_run_twice(store, attempt, engine, tenant):
    """Many clients repeat few requests until each is answered; the first two runs of each fail."""
    chance = random.Random(11)  # noqa: S311 - moments, not secrets
    running, done, failed = Counter(), Counter(), Counter()

    async def client(key):
        while True:
            one = attempt(key, key.encode())
            reason = await refusal(_claimed(store, one))
            if reason == "IDEMPOTENCY_REQUEST_IN_FLIGHT":
                await asyncio.sleep(chance.random() / 100)
                continue
            if reason is not None:
                return reason
            running[key] += 1
            assert running[key] == 1
            await asyncio.sleep(chance.random() / 100)
            running[key] -= 1
            if failed[key] < 2:
                failed[key] += 1
                await store.release(one)
                continue
            done[key] += 1
            await keep(store, one, key.encode())
            return None

    keys = [f"key-{number % 6}" for number in range(48)]
    ends = await asyncio.gather(*(client(key) for key in keys))
    assert done == {key: 1 for key in set(keys)}
    assert failed == {key: 2 for key in set(keys)}
    assert Counter(ends) == {None: 6, "replayed": 42}
    assert await totals(engine, tenant) == (6, 30)


class _Replayed(Exception):
    reason = "replayed"


async def _claimed(store, one):
    found = await store.claim(one)
    if found is not None:
        key = await read(store, found)
        assert key.ljust(32, b".") == one.fingerprint
        raise _Replayed
