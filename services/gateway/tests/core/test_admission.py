"""Reserve, then settle: the limit's edge, exactly once, leases, restarts, isolation."""

import asyncio
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from atrium_common.domain import Usage
from atrium_common.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import open_core
from atrium_gateway.quota.limits import Limit, Unit, Window

HOUR = timedelta(hours=1)


def tokens(amount: int, window: Window = Window.HOUR) -> Limit:
    return Limit("chat", Unit.TOKENS, window, amount)


async def events(core, clock, tenant="acme"):
    now = clock_time(clock)
    return await core.reports.events(tenant, start=now - 48 * HOUR, end=now + HOUR)


async def totals(core, clock, tenant="acme"):
    now = clock_time(clock)
    return await core.reports.totals(tenant, start=now - 48 * HOUR, end=now + HOUR)


def clock_time(clock):
    return datetime.fromtimestamp(clock(), UTC)


async def test_of_many_at_once_exactly_the_default_limit_is_admitted(
    core, clock, make_tenant, admit
):
    acme = await make_tenant()

    async def one() -> bool:
        try:
            reservation = await admit(acme)
        except QuotaExceeded:
            return False
        await core.admission.settle(reservation.id, Usage(output_tokens=1), Outcome.COMPLETED)
        return True

    admitted = await asyncio.gather(*(one() for _ in range(250)))
    assert sum(admitted) == 100
    charged = await totals(core, clock)
    assert (charged.requests, charged.output_tokens, charged.refunded) == (100, 100, 0)
    assert len(await events(core, clock)) == 100


async def test_capabilities_and_tenants_have_limits_of_their_own(core, make_tenant, admit):
    acme = await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.HOUR, 1))
    globex = await make_tenant("globex", Limit("chat", Unit.REQUESTS, Window.HOUR, 1))
    await admit(acme)
    await admit(globex)
    await admit(acme, capability="transcription")
    for principal in (acme, globex):
        with pytest.raises(QuotaExceeded):
            await admit(principal)


async def test_a_limit_over_all_capabilities_counts_them_together(core, make_tenant, admit):
    acme = await make_tenant("acme", Limit("*", Unit.REQUESTS, Window.HOUR, 2))
    await admit(acme)
    await admit(acme, capability="embedding")
    with pytest.raises(QuotaExceeded):
        await admit(acme, capability="transcription")


async def test_the_reply_tells_limit_remaining_and_reset(core, make_tenant, admit):
    acme = await make_tenant("acme", tokens(1000))
    reservation = await admit(acme)
    tightest, other = reservation.limits
    assert (tightest.unit, tightest.limit, tightest.remaining) == ("tokens", 1000, 850)
    assert (other.unit, other.limit, other.remaining) == ("requests", 100, 99)
    assert f"{other.reset_time:%H:%M}" == "13:00"


async def test_the_unlimited_tenant_has_no_limits(core, make_tenant, admit):
    dev = await make_tenant("dev", unlimited=True)
    for _ in range(300):
        assert (await admit(dev)).limits == ()


async def test_settling_gives_back_what_was_not_used(core, make_tenant, admit):
    acme = await make_tenant("acme", tokens(300))
    first = await admit(acme)
    second = await admit(acme)
    with pytest.raises(QuotaExceeded):
        await admit(acme)
    await core.admission.settle(first.id, Usage(input_tokens=10), Outcome.CANCELLED)
    await core.admission.refund(second.id, "UNAVAILABLE")
    assert (await admit(acme)).limits[0].remaining == 140


async def test_a_refund_costs_nothing_and_is_recorded(core, clock, make_tenant, admit):
    acme = await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.HOUR, 1))
    for _ in range(3):
        await core.admission.refund((await admit(acme)).id, "INVALID_ARGUMENT")
    charged = await totals(core, clock)
    assert (charged.requests, charged.refunded, charged.cost) == (0, 3, 0)
    assert {event.reason for event in await events(core, clock)} == {"INVALID_ARGUMENT"}


async def test_closing_again_changes_nothing(core, clock, make_tenant, admit):
    reservation = await admit(await make_tenant())
    usage = Usage(model="m", input_tokens=7, output_tokens=5)
    await asyncio.gather(
        core.admission.settle(reservation.id, usage, Outcome.COMPLETED),
        core.admission.settle(reservation.id, Usage(output_tokens=999), Outcome.FAILED),
        core.admission.refund(reservation.id, "INTERNAL"),
    )
    await core.admission.settle(reservation.id, Usage(), Outcome.CANCELLED)
    (event,) = await events(core, clock)
    assert (event.outcome, event.totals.output_tokens) == ("completed", 5)
    assert str(event.totals.cost) == "0.00000405"


async def test_what_never_was_can_not_be_closed(core):
    for call in (
        core.admission.settle("nothing", Usage(), Outcome.COMPLETED),
        core.admission.refund("nothing", "X"),
        core.admission.renew("nothing"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_a_settlement_whose_caller_is_cancelled_is_recorded_once(
    core, clock, make_tenant, admit
):
    dev = await make_tenant(unlimited=True)
    for number in range(60):
        reservation = await admit(dev)
        task = asyncio.create_task(
            core.admission.settle(reservation.id, Usage(output_tokens=1), Outcome.COMPLETED)
        )
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # What the pipeline does when it is unsure: settle again.
        await core.admission.settle(reservation.id, Usage(output_tokens=1), Outcome.COMPLETED)
    charged = await totals(core, clock)
    assert (charged.requests, charged.output_tokens) == (60, 60)


async def test_more_than_reserved_is_charged_truthfully(core, clock, make_tenant, admit):
    acme = await make_tenant("acme", tokens(200))
    reservation = await admit(acme)
    await core.admission.settle(reservation.id, Usage(output_tokens=500), Outcome.COMPLETED)
    assert (await totals(core, clock)).output_tokens == 500
    with pytest.raises(QuotaExceeded):
        await admit(acme, estimate=Usage(output_tokens=1))


async def test_a_lease_that_passes_is_charged_as_reserved_and_says_so(
    core, clock, make_tenant, admit
):
    acme = await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.CONCURRENT, 1))
    reservation = await admit(acme)
    clock.advance(timedelta(seconds=50))
    assert await core.admission.renew(reservation.id) == timedelta(seconds=60)
    clock.advance(timedelta(seconds=50))
    assert await core.admission.expire() == 0
    clock.advance(timedelta(seconds=10))
    assert await core.admission.expire() == 1
    await admit(acme)
    # The late truth does not change what was booked.
    await core.admission.settle(reservation.id, Usage(output_tokens=1), Outcome.COMPLETED)
    with pytest.raises(NotFound):
        await core.admission.renew(reservation.id)
    (event,) = await events(core, clock)
    assert (event.outcome, event.estimated, event.totals.output_tokens) == ("expired", True, 50)


async def test_a_grown_reservation_is_what_expires(core, clock, make_tenant, admit):
    acme = await make_tenant("acme", tokens(1000))
    reservation = await admit(acme)
    with pytest.raises(QuotaExceeded):
        await core.admission.renew(reservation.id, Usage(output_tokens=1001))
    await core.admission.renew(reservation.id, Usage(output_tokens=1000))
    clock.advance(timedelta(seconds=61))
    await core.admission.expire()
    assert (await events(core, clock))[0].reserved == {"output_tokens": 1000}


async def test_scope_and_block_are_checked_before_anything_is_reserved(core, make_tenant, admit):
    await make_tenant("acme")
    narrow = Principal(tenant="acme", subject="u", scopes=frozenset({"embedding"}))
    with pytest.raises(PermissionDenied):
        await admit(narrow)
    with pytest.raises(PermissionDenied):
        await admit(await make_tenant("bad", blocked=True))
    with pytest.raises(Unauthenticated):
        await admit(Principal(tenant="nobody", subject="u"))
    assert core.admission.open_reservations == 0


async def test_a_restart_closes_orphans_and_remembers_what_windows_hold(
    settings, catalogue, clock, core, make_tenant
):
    acme = await make_tenant("acme", tokens(1000, Window.MONTH))

    async def use(opened, amount):
        return await opened.admission.admit(
            acme,
            capability="chat",
            model="m",
            estimate=Usage(input_tokens=amount),
            request_id="r",
            method="m",
        )

    done = await use(core, 300)
    await core.admission.settle(done.id, Usage(input_tokens=200), Outcome.COMPLETED)
    orphan = await use(core, 500)
    with pytest.raises(Conflict):
        async with open_core(settings, catalogue=catalogue, clock=clock):
            pytest.fail("two processes share one in-process store")
    await core.ledger.synced()
    other = settings.model_copy(update={"state_dir": settings.state_dir / "copy"})
    copy_state(settings.state_dir, other.state_dir)
    async with open_core(other, catalogue=catalogue, clock=clock) as again:
        (found,) = [e for e in await events(again, clock) if e.id == orphan.id]
        assert (found.outcome, found.estimated) == ("orphaned", True)
        assert found.totals.input_tokens == 500
        with pytest.raises(QuotaExceeded):
            await use(again, 301)
        assert (await use(again, 300)).limits[0].remaining == 0


def copy_state(source, target):
    """What a crash leaves: the files as they are, nothing closed."""
    shutil.copytree(source / "spool", target / "spool")
    with (
        sqlite3.connect(source / "gateway.db") as live,
        sqlite3.connect(target / "gateway.db") as copy,
    ):
        live.backup(copy)
    live.close()
    copy.close()


async def test_while_the_disk_refuses_nothing_is_admitted_and_nothing_is_lost(
    core, clock, make_tenant, admit
):
    dev = await make_tenant(unlimited=True)
    before = await admit(dev)
    spool = core.ledger.spool
    working = spool._sync

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    spool._sync = refuse
    with pytest.raises(Unavailable):
        await core.admission.settle(before.id, Usage(output_tokens=3), Outcome.COMPLETED)
    with pytest.raises(Unavailable):
        await admit(dev)
    spool._sync = working
    await core.ledger.synced()
    after = await admit(dev)
    await core.admission.settle(after.id, Usage(output_tokens=4), Outcome.COMPLETED)
    charged = await totals(core, clock)
    assert (charged.requests, charged.output_tokens) == (2, 7)


async def test_one_tenant_never_sees_another(core, clock, make_tenant, admit):
    acme, globex = await make_tenant("acme"), await make_tenant("globex")
    for principal, amount in ((acme, 1), (globex, 10), (globex, 20)):
        reservation = await admit(principal)
        await core.admission.settle(reservation.id, Usage(output_tokens=amount), Outcome.COMPLETED)
    assert (await totals(core, clock, "acme")).output_tokens == 1
    assert (await totals(core, clock, "globex")).output_tokens == 30
    assert len(await events(core, clock, "acme")) == 1
    assert await events(core, clock, "nobody") == []
    (mine,) = await events(core, clock, "acme")
    now = clock_time(clock)
    with pytest.raises(InvalidArgument):
        await core.reports.events("globex", start=now - HOUR, end=now + HOUR, after=mine.id)
