"""Two rounds of `make chaos`, and whether its reading of the books sees what is wrong."""

from collections.abc import Callable

import pytest

from atrium_gateway.usage.tables import COUNTS, SUMS
from tests.chaos.books import problems
from tests.chaos.load import Answer, Record
from tests.chaos.rounds import alone, play, together, victims
from tests.kit.tenancy import Row

_KEYS = {"tenant": "t", "capability": "chat", "model": "m", "key_id": "k", "subject": "s"}


@pytest.mark.parametrize(("layout", "kills"), [(alone, "gateway 0"), (together, "PostgreSQL")])
async def test_a_kill_under_load_loses_no_answer_and_doubles_none(tmp_path, layout, kills):
    with layout(tmp_path) as stack:
        victim = next(each for each in victims(stack) if each.name == kills)
        assert "answered" in await play(stack, victim, seed=6)


def event(name: str, *, tokens: int = 7, outcome: str = "completed") -> Row:
    counts = dict.fromkeys((*COUNTS, "provider_cost_nano"), 0) | {"output_tokens": tokens}
    left = outcome == "orphaned"
    told = {"request_id": name, "outcome": outcome, "estimated": left, "started_ms": 3_600_001}
    return {**_KEYS, **counts, **told, "requests": 1}


def hour(*, events: int, tokens: int, outcome: str = "completed") -> Row:
    sums = dict.fromkeys(SUMS, 0)
    sums |= {"output_tokens": tokens, "requests": events, "events": events}
    return {**_KEYS, "hour": 1, "outcome": outcome, **sums}


def seen() -> Record:
    answers = [Answer("a", False, {"output_tokens": 7}), Answer("b", True, {"output_tokens": 7})]
    return Record(asked=["a", "b", "c"], answers=answers)


def test_books_that_hold_have_no_problem():
    events = [event("a"), event("b"), event("c", outcome="orphaned")]
    hours = [hour(events=2, tokens=14), hour(events=1, tokens=7, outcome="orphaned")]
    assert problems(seen(), events, hours) == []


def test_a_direct_answer_may_be_estimated_where_it_could_not_be_settled():
    events = [event("a"), event("b", tokens=9, outcome="orphaned")]
    hours = [hour(events=1, tokens=7), hour(events=1, tokens=9, outcome="orphaned")]
    assert problems(seen(), events, hours) == []
    events[1]["output_tokens"] = hours[1]["output_tokens"] = 6
    assert "estimated below" in problems(seen(), events, hours)[0]


def lose(events: list[Row], hours: list[Row]) -> None:
    del events[0]


def double(events: list[Row], hours: list[Row]) -> None:
    events.append(event("a"))


def change(events: list[Row], hours: list[Row]) -> None:
    events[0]["output_tokens"] = 8


def estimate(events: list[Row], hours: list[Row]) -> None:
    events[0]["estimated"] = True


def invent(events: list[Row], hours: list[Row]) -> None:
    events.append(event("nobody"))


def forget(events: list[Row], hours: list[Row]) -> None:
    events[0] = event("a", outcome="orphaned")


def add(events: list[Row], hours: list[Row]) -> None:
    hours[0]["requests"] += 1


def skip(events: list[Row], hours: list[Row]) -> None:
    hours.clear()


@pytest.mark.parametrize("harm", [lose, double, change, estimate, invent, forget, add, skip])
def test_whatever_is_wrong_is_seen(harm: Callable[[list[Row], list[Row]], None]):
    events, hours = [event("a"), event("b")], [hour(events=2, tokens=14)]
    assert problems(seen(), events, hours) == []
    harm(events, hours)
    assert problems(seen(), events, hours)
