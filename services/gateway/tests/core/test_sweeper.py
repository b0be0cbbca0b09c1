"""What other gateways left behind is ended only after they had time to tell of it themselves."""

import asyncio
from types import SimpleNamespace

import pytest

from atrium_common.errors import Unavailable
from atrium_gateway.quota.store import Found
from atrium_gateway.sweeper import Sweeper


class Lapsing:
    """A shared store in which reservations have lapsed; each is closed already when claimed."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.claimed: list[str] = []
        self.away = False
        self.looked_at = "acme"
        self.running = 0
        self.most_at_once = 0

    async def tend(self) -> None:
        pass

    async def tenants(self) -> list[str]:
        if self.away:
            raise Unavailable("Away.")
        return [self.looked_at]

    async def lapsed(self, tenant: str) -> list[str]:
        return list(self.left) if tenant == "acme" else []

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        return None

    async def claim(self, tenant: str, reservation_id: str) -> bytes | None:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.claimed.append(reservation_id)
        self.left.remove(reservation_id)
        return None


@pytest.fixture
def store() -> Lapsing:
    return Lapsing()


@pytest.fixture
def look(store):
    """Sweeps once, a look later or so many seconds."""

    async def notice() -> int:
        return 1

    now = [0.0]
    books = SimpleNamespace(store=store, shared=store, open={}, notice=notice)
    sweeper = Sweeper(books, prices=SimpleNamespace(), clock=lambda: now[0])

    async def once(seconds: float = 2.0) -> None:
        now[0] += seconds
        await sweeper.sweep()

    return once


async def test_what_stays_lapsed_is_ended_at_the_second_look(store, look):
    store.left = ["a"]
    await look()
    assert store.claimed == []
    await look()
    assert store.claimed == ["a"]


async def test_what_its_gateway_settles_in_between_is_not_ended(store, look):
    store.left = ["a"]
    await look()
    store.left = ["b"]
    await look()
    assert store.claimed == []


async def test_a_store_that_was_away_is_given_time_and_looked_at_twice_again(store, look):
    store.left = ["a"]
    await look()
    store.away = True
    with pytest.raises(Unavailable):
        await look()
    store.away = False
    for _ in range(2):
        await look()  # one that comes too early, and the first
        assert store.claimed == []
    await look()
    assert store.claimed == ["a"]


async def test_what_thousands_left_behind_is_ended_by_the_rounds_that_follow_some_at_a_time(
    store, look
):
    store.left = [str(number) for number in range(2_300)]
    await look()
    assert store.claimed == []
    for ended in (1_000, 2_000, 2_300):
        await look(0.5 if store.claimed else 2.0)
        assert len(store.claimed) == ended
    assert len(set(store.claimed)) == 2_300
    assert 1 < store.most_at_once <= 16
    store.left = ["late"]
    await look(0.5)
    await look(1.5)  # the first that sees it: looks are rare again
    assert "late" not in store.claimed
    await look()
    assert store.claimed[-1] == "late"


async def test_of_many_tenants_each_is_known_until_it_is_looked_at_again(store, look):
    store.left = ["a", "b"]
    await look()
    store.looked_at = "globex"
    for _ in range(5):
        await look()
    store.left = ["b", "c"]
    store.looked_at = "acme"
    await look()
    assert store.claimed == ["b"]
