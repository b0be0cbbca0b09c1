"""Whoever calls a service past the gateway meets the same limits and is in the same ledger."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx
import pytest
from msgspec.structs import asdict

from atrium_common.wire import usage_from_proto
from atrium_gateway.database import open_engine
from atrium_gateway.usage.records import Units, units_of
from tests.kit.direct import DIRECT, SENTENCE, bearer
from tests.kit.fakes import running_fakes
from tests.kit.stack import Stack, running_stack
from tests.kit.suite import free_ports
from tests.kit.tenancy import Limits, Row, events_of, make_tenant

_CHAT = {"messages": [{"role": "user", "content": "What is the capital?"}], "max_tokens": 16}
SAME = {
    "text": ("/v1/chat/completions", {**_CHAT, "model": "fake-chat"}),
    "embedding": ("/v1/embeddings", {"model": "fake-embedding", "input": "some words"}),
    "speech": (
        "/api/text-to-speech",
        {"model": "fake-speech", "text": SENTENCE * 2, "format": "pcm"},
    ),
    "picture": ("/api/text-to-image", {"model": "fake-pictures", "prompt": "three stars"}),
}
"""The same work through the gateway."""
CALLS = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("doors")) as running:
        yield running


class Doors:
    """A tenant's callers."""

    def __init__(self, stack: Stack, tenant: str, key: str) -> None:
        self.stack = stack
        self.tenant = tenant
        self.key = key
        self.http = httpx.AsyncClient(
            base_url=stack.gateways[0].url,
            headers={"authorization": f"Bearer {self.key}"},
            timeout=60,
        )
        self.channels = {
            name: grpc.aio.insecure_channel(target) for name, target in stack.targets.items()
        }

    async def direct(self, kind: str, name: str) -> str:
        """Calls a service; returns the status code's name."""
        call = DIRECT[kind]
        try:
            await call.run(self.channels[call.service], bearer(self.key, name))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def rest(self, kind: str, name: str) -> str:
        """Asks the gateway; returns what a service would have said."""
        path, body = SAME[kind]
        answer = await self.http.post(path, json=body, headers={"x-request-id": name})
        return {200: "OK", 429: "RESOURCE_EXHAUSTED"}.get(answer.status_code, answer.text)

    async def events(self, count: int) -> list[Row]:
        """The ledger, once it has so many events."""
        engine = open_engine(self.stack.database_url)
        try:
            async with asyncio.timeout(20):
                while len(found := await events_of(engine, self.tenant)) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            return found
        finally:
            await engine.dispose()


@asynccontextmanager
async def doors(stack: Stack, tenant: str, limits: Limits = ()) -> AsyncIterator[Doors]:
    key = await asyncio.to_thread(make_tenant, stack.environments[0], tenant, limits)
    made = Doors(stack, tenant, key)
    try:
        yield made
    finally:
        await made.http.aclose()
        for channel in made.channels.values():
            await channel.close()


def units(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in asdict(Units())}


@pytest.mark.parametrize("kind", DIRECT)
async def test_a_direct_call_is_in_the_ledger_as_its_service_told(stack, kind):
    async with doors(stack, f"told-{kind.replace(' ', '-')}") as caller:
        call = DIRECT[kind]
        told = await call.run(caller.channels[call.service], bearer(caller.key, "direct"))
        (event,) = await caller.events(1)
        assert units(event) == asdict(units_of(usage_from_proto(told)))
        assert (event["request_id"], event["outcome"]) == ("direct", "completed")
        assert (event["capability"], event["requests"]) == (call.capability, 1)
        assert event["key_id"] in caller.key
        assert not event["estimated"]


@pytest.mark.parametrize("kind", SAME)
async def test_the_same_work_is_charged_alike_at_both_doors(stack, kind):
    async with doors(stack, f"alike-{kind}") as caller:
        assert await caller.direct(kind, "direct") == "OK"
        assert await caller.rest(kind, "rest") == "OK"
        one, other = await caller.events(2)
        assert units(one) == units(other)
        for column in ("capability", "model", "cost_nano", "price_version", "outcome", "requests"):
            assert one[column] == other[column], column


@pytest.mark.parametrize("window", ["day", "total"])
async def test_of_callers_at_both_doors_exactly_the_limit_is_served(stack, window):
    limit = 17
    limits = [("requests", window, limit)]
    async with doors(stack, f"mixed-{window}", limits) as caller:
        asked = [caller.direct(kind, f"d-{n}") for kind in DIRECT for n in range(CALLS)]
        asked += [caller.rest(kind, f"r-{n}") for kind in SAME for n in range(CALLS)]
        said = Counter(await asyncio.gather(*asked))
        assert said == {"OK": limit, "RESOURCE_EXHAUSTED": len(asked) - limit}
        events = await caller.events(limit)
        assert [event["requests"] for event in events] == [1] * limit
        assert {event["request_id"][:2] for event in events} <= {"d-", "r-"}


async def test_of_slots_no_more_are_held_than_there_are_at_both_doors(stack):
    slots = 3
    async with doors(stack, "slots", [("requests", "concurrent", slots)]) as caller:
        held: list[Any] = []
        codes: list[str] = []
        for kind in ("streamed text", "picture", "edit", "answer", "pages"):
            call = DIRECT[kind]
            usages = call.usages(
                caller.channels[call.service], bearer(caller.key, kind.split()[0]), slow=True
            )
            try:
                await anext(usages)
                held.append(usages)
            except grpc.aio.AioRpcError as error:
                codes.append(error.code().name)
        assert (len(held), codes) == (slots, ["RESOURCE_EXHAUSTED"] * 2)
        assert await caller.rest("text", "full") == "RESOURCE_EXHAUSTED"
        for usages in held:
            await usages.aclose()
        await caller.events(slots)
        assert await caller.rest("text", "free") == "OK"


async def test_a_refusal_names_its_limit_at_both_doors(stack):
    async with doors(stack, "named", [("requests", "day", 1)]) as caller:
        assert await caller.direct("text", "first") == "OK"
        stub = DIRECT["text"].open(caller.channels["llm"], bearer(caller.key, "second"), False)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub
        details = dict(refused.value.trailing_metadata())
        assert b"QuotaFailure" in details["grpc-status-details-bin"]
        path, body = SAME["text"]
        answer = await caller.http.post(path, json=body)
        assert answer.status_code == 429
        assert json.loads(answer.text)["error"]["message"] in (refused.value.details() or "")


async def test_without_an_authority_no_tenant_is_served_and_nothing_runs(tmp_path):
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    async with running_fakes(tmp_path, admission_target=nobody) as services:
        before = {name: work(fake.engine) for name, fake in services.items()}
        for name, call in DIRECT.items():
            target = f"127.0.0.1:{services[call.service].port}"
            async with grpc.aio.insecure_channel(target) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call.run(channel, bearer("any", "away"))
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, name
        assert {name: work(fake.engine) for name, fake in services.items()} == before


def work(engine: Any) -> int:
    """What an engine did so far, in its own steps."""
    return sum(getattr(engine, count, 0) for count in ("steps", "started"))


async def test_an_authority_that_dies_and_returns_takes_up_the_same_books(stack):
    limit = 10
    async with doors(stack, "returning", [("requests", "total", limit)]) as caller:
        gateway = stack.gateways[0]
        served = [await caller.direct(kind, "before") for kind in DIRECT]
        assert set(served) == {"OK"}
        await asyncio.to_thread(gateway.kill)
        started = time.monotonic()
        asked = [caller.direct(kind, "away") for kind in DIRECT]
        assert set(await asyncio.gather(*asked)) == {"UNAVAILABLE"}
        assert time.monotonic() - started < 20
        await asyncio.to_thread(gateway.start)
        async with asyncio.timeout(30):
            while await caller.direct("text", "again") != "OK":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await caller.direct("text", "over") == "RESOURCE_EXHAUSTED"
        events = await caller.events(limit)
        assert not [event for event in events if event["request_id"] == "away"]
        assert len(events) == limit
