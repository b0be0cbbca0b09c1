"""Gateways that share a Redis: one count, one event for each reservation, whoever closes it."""

import asyncio

import pytest
from redis.crc import key_slot
from replica_gateways import (
    SLOTS,
    TOKENS,
    admit,
    events,
    have,
    left,
    settle,
    total,
    until,
)

from atrium_common.domain import Usage
from atrium_common.errors import NotFound, QuotaExceeded
from atrium_gateway.admission import Outcome
from atrium_gateway.core import open_core


async def test_any_gateway_renews_settles_and_refunds_what_another_admitted(gateways):
    async with gateways(2, TOKENS) as (first, second):
        one, two, three = [await admit(first) for _ in range(3)]
        await second.admission.renew(one.id, Usage(input_tokens=700), tenant="acme")
        with pytest.raises(QuotaExceeded):
            await admit(first, 101)
        with pytest.raises(QuotaExceeded):
            await second.admission.renew(two.id, Usage(input_tokens=201), tenant="acme")
        await asyncio.gather(
            *(settle(core, one, 600 + number) for number, core in enumerate((second, first) * 3))
        )
        await second.admission.refund(two.id, "INVALID_ARGUMENT", tenant="acme")
        await settle(first, two, 999)
        await settle(first, three, 50)
        assert await left(second) == await left(first) == 350 - (await total(first, second) - 650)
        completed = [event for event in await events(first, second) if event[0] == "completed"]
        assert (completed[0], len(completed)) == (("completed", 50), 2)
        assert first.admission.open_reservations <= 2  # closed by the other; swept later


async def test_without_the_tenant_only_the_one_that_admitted_can_close(gateways):
    async with gateways(2, TOKENS) as (first, second):
        reservation = await admit(first)
        with pytest.raises(NotFound):
            await second.admission.settle(reservation.id, Usage(), Outcome.COMPLETED)
        with pytest.raises(NotFound):
            await second.admission.settle(
                reservation.id, Usage(), Outcome.COMPLETED, tenant="other"
            )
        await settle(second, reservation, 7)
        assert await events(first, second) == [("completed", 7)]


async def test_what_nobody_renews_ends_once_and_what_any_gateway_renews_lives(gateways):
    async with gateways(2, TOKENS, SLOTS, lease_seconds=1.5) as (first, second):
        kept, dropped = await admit(first, 10), await admit(first, 20)

        async def renew() -> None:
            while True:
                await second.admission.renew(kept.id, tenant="acme")
                await asyncio.sleep(0.2)

        beat = asyncio.create_task(renew())

        async def ended() -> bool:
            return ("expired", 20) in await events(first, second)

        await until(ended)
        beat.cancel()
        await settle(second, kept, 5)
        await settle(first, dropped, 1)
        assert await events(first, second) == [("completed", 5), ("expired", 20)]
        assert await left(first, "requests") == 1


async def test_a_gateway_that_is_back_asks_what_became_of_its_reservations(
    gateways, together, catalogue, redis
):
    async with gateways(1, TOKENS) as (staying,):
        async with open_core(together, catalogue=catalogue) as leaving:
            settled, living, lost = [await admit(leaving, 10 * n) for n in (1, 2, 3)]
            leaving.admission._books.open.clear()  # as a kill does
        await settle(staying, settled, 4)
        await redis.delete(f"atrium:{{acme}}:held:{lost.id}")
        async with open_core(together, catalogue=catalogue) as back:
            await until(lambda: have(back, 1))
            await settle(staying, living, 9)
            assert await events(staying, back) == [
                ("completed", 4),
                ("completed", 9),
                ("orphaned", 30),
            ]


async def test_after_a_loss_the_ledger_and_all_open_reservations_count_again(gateways, redis):
    async with gateways(2, TOKENS) as (first, second):
        await settle(first, await admit(first), 300)
        here, there = await admit(first, 200), await admit(second, 100)
        await redis.flushall()
        assert await left(first) == 400
        await settle(first, here, 150)
        await settle(second, there, 100)
        assert await left(second) == 450
        with pytest.raises(QuotaExceeded):
            await admit(second, 451)
        assert await total(first, second) == 550


async def test_what_settles_while_counters_are_rebuilt_is_counted_once(gateways, redis):
    async with gateways(2, TOKENS) as (first, second):
        await settle(first, await admit(first), 300)
        here, there, lost = await admit(first, 200), await admit(second), await admit(first)
        await redis.flushall()
        for core in (first, second):
            await core.admission._books.notice()
        by_model = Usage(model="m", input_tokens=40), Usage(model="other", input_tokens=20)
        await settle(second, here, 150)
        await settle(first, there, 60, *by_model)
        await redis.delete(f"atrium:{{acme}}:held:{lost.id}")  # of no gateway that had time
        await settle(first, lost, 7)
        assert await left(first) == 1000 - 300 - 150 - 60 - 100 - 7
        assert await left(second) == await left(first)
        assert await total(first, second) == 517


async def test_every_key_of_a_tenant_lies_in_one_slot_of_a_cluster(gateways, redis):
    async with gateways(1, TOKENS, SLOTS) as (core,):
        await admit(core)
        await settle(core, await admit(core), 1)
        names = {key.decode() async for key in redis.scan_iter()}
    apart = {"atrium:tenants", "atrium:generation"}  # each used by commands of its own
    assert apart <= names
    assert len(names - apart) >= 4
    assert len({key_slot(name.encode()) for name in names - apart}) == 1
