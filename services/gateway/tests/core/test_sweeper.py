"""What other gateways left behind is ended only after they had time to tell of it themselves."""

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

    async def tend(self) -> None:
        pass

    async def tenants(self) -> list[str]:
        if self.away:
            raise Unavailable("Away.")
        return ["acme"]

    async def lapsed(self, tenant: str) -> list[str]:
        return list(self.left)

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        return None

    async def claim(self, tenant: str, reservation_id: str) -> bytes | None:
        self.claimed.append(reservation_id)
        self.left.remove(reservation_id)
        return None


@pytest.fixture
def store() -> Lapsing:
    return Lapsing()


@pytest.fixture
def look(store):
    """Sweeps once, a look later."""

    async def notice() -> int:
        return 1

    now = [0.0]
    books = SimpleNamespace(store=store, shared=store, open={}, notice=notice)
    sweeper = Sweeper(books, prices=SimpleNamespace(), clock=lambda: now[0])

    async def once() -> None:
        now[0] += 2.0
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
