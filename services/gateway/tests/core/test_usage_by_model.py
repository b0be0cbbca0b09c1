"""Several models work for one request: an event and a price for each, all or none, once."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium.admission.v1 import admission_pb2 as pb
from atrium.admission.v1.admission_pb2_grpc import AdmissionServiceStub
from atrium_common.admission_client import AdmissionClient, TenantCaller
from atrium_common.admission_client import Outcome as WireOutcome
from atrium_common.channels import open_channel
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.service import WorkEstimate
from atrium_gateway.admission import Outcome
from atrium_gateway.admission_server import serving_admission
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.usage.framing import frame, records
from atrium_gateway.usage.price import PriceBook
from atrium_gateway.usage.records import SplitSettlement, Units, UsageEvent
from atrium_gateway.usage.recovery import scan
from atrium_gateway.usage.reports import Group
from atrium_gateway.usage.split import share_id, shares
from atrium_gateway.usage.spool import segment_path

HOUR = timedelta(hours=1)
SIGHT = Usage(
    model="blip2",
    model_digest="a" * 64,
    engine="blip2",
    input_tokens=40,
    output_tokens=10,
    images=1,
    inference_time=timedelta(milliseconds=300),
)
READING = Usage(
    model="tesseract",
    engine="tesseract",
    pages=3,
    inference_time=timedelta(milliseconds=700),
)
BOTH = Usage(
    model="blip2",
    engine="blip2",
    input_tokens=40,
    output_tokens=10,
    images=1,
    pages=3,
    inference_time=timedelta(seconds=1),
)
PRICES = {
    "blip2": {"request": Decimal("0.5"), "image": Decimal("0.25")},
    "tesseract": {"request": Decimal(9), "page": Decimal("0.1")},
    "m": {"page": Decimal(100)},
}


@pytest.fixture
def priced(core):
    core.admission._prices = PriceBook(1, PRICES)
    return core


def span(clock):
    now = datetime.fromtimestamp(clock(), UTC)
    return {"start": now - 48 * HOUR, "end": now + HOUR}


async def events(core, clock):
    found = await core.reports.events("acme", **span(clock))
    return sorted(found, key=lambda event: event.totals.requests, reverse=True)


async def settle(core, admit, principal, usage=BOTH, by_model=(SIGHT, READING), **how):
    reservation = await admit(principal, estimate=usage)
    await core.admission.settle(
        reservation.id, usage, how.get("outcome", Outcome.COMPLETED), by_model
    )
    return reservation


async def test_each_model_has_its_event_at_its_own_price(priced, clock, make_tenant, admit):
    reservation = await settle(priced, admit, await make_tenant())
    seen, read = await events(priced, clock)
    assert (seen.id, seen.model, seen.engine) == (reservation.id, "blip2", "blip2")
    assert (read.model, read.engine) == ("tesseract", "tesseract")
    assert seen.totals.cost == Decimal("0.75")  # the request is charged once, with the first
    assert read.totals.cost == Decimal("0.3")
    assert (seen.totals.requests, read.totals.requests) == (1, 0)
    assert (seen.totals.refunded, read.totals.refunded) == (0, 0)
    assert (seen.totals.images, seen.totals.pages) == (1, 0)
    assert (read.totals.images, read.totals.pages) == (0, 3)
    assert seen.request_id == read.request_id
    assert seen.id != read.id
    assert seen.id[:19] == read.id[:19]
    assert (seen.started_at, seen.outcome) == (read.started_at, read.outcome)
    assert seen.reserved == {"input_tokens": 40, "output_tokens": 10, "images": 1, "pages": 3}
    assert read.reserved == {}


async def test_roll_ups_stand_under_each_model_and_count_the_request_once(
    priced, clock, make_tenant, admit
):
    acme = await make_tenant()
    for _ in range(3):
        await settle(priced, admit, acme)
    await priced.admission.refund((await admit(acme)).id, "INTERNAL")
    groups = await priced.reports.groups("acme", **span(clock), by=[Group.MODEL])
    found = {group.model: group.totals for group in groups}
    assert (found["blip2"].requests, found["blip2"].images) == (3, 3)
    assert (found["tesseract"].requests, found["tesseract"].pages) == (0, 9)
    assert found["m"].refunded == 1
    charged = await priced.reports.totals("acme", **span(clock))
    assert (charged.requests, charged.refunded, charged.pages) == (3, 1, 9)
    assert charged.cost == 3 * Decimal("1.05")
    assert charged.inference_time == timedelta(seconds=3)


async def test_limits_count_the_sum_and_one_request(core, make_tenant, admit):
    acme = await make_tenant(
        "acme",
        Limit("chat", Unit.PAGES, Window.HOUR, 10),
        Limit("chat", Unit.REQUESTS, Window.HOUR, 3),
    )
    await settle(core, admit, acme)
    left = {limit.unit: limit.remaining for limit in (await admit(acme)).limits}
    assert left["pages"] == 7
    assert left["requests"] == 1


async def test_a_model_that_worked_twice_has_one_event(priced, clock, make_tenant, admit):
    usage = Usage(model="blip2", input_tokens=80, output_tokens=20, images=2, pages=3)
    await settle(priced, admit, await make_tenant(), usage, (SIGHT, READING, SIGHT))
    seen, read = await events(priced, clock)
    assert (seen.model, seen.totals.input_tokens, seen.totals.images) == ("blip2", 80, 2)
    assert read.totals.pages == 3


@pytest.mark.parametrize(
    "by_model",
    [(SIGHT,), (SIGHT, READING, READING), (Usage(model="tesseract", pages=3),)],
    ids=["less", "more", "other"],
)
async def test_what_does_not_add_up_is_ignored_and_the_total_holds(
    priced, clock, make_tenant, admit, by_model
):
    await settle(priced, admit, await make_tenant(), by_model=by_model)
    (event,) = await events(priced, clock)
    assert event.model == "blip2"
    assert (event.totals.input_tokens, event.totals.pages) == (40, 3)


async def test_closing_again_changes_nothing(core, clock, make_tenant, admit):
    reservation = await settle(core, admit, await make_tenant())
    await asyncio.gather(
        core.admission.settle(reservation.id, READING, Outcome.FAILED, (READING,)),
        core.admission.settle(reservation.id, BOTH, Outcome.COMPLETED),
        core.admission.refund(reservation.id, "INTERNAL"),
    )
    assert [event.outcome for event in await events(core, clock)] == ["completed"] * 2


async def test_a_segment_that_is_read_again_doubles_nothing(core, clock, make_tenant, admit):
    await settle(core, admit, await make_tenant())
    await core.ledger.flush()
    before = await core.reports.totals("acme", **span(clock))
    lines = segment_path(core.ledger.spool.folder, core.ledger.spool.committed.segment)
    found = [record for record, _ in records(lines.read_bytes())]
    (split,) = [record for record in found if isinstance(record, SplitSettlement)]
    await core.ledger._writer._store(split.events)
    assert await core.reports.totals("acme", **span(clock)) == before
    assert len(await events(core, clock)) == 2


async def test_expiry_and_refund_are_one_event(core, clock, make_tenant, admit):
    acme = await make_tenant()
    await core.admission.refund((await admit(acme)).id, "UNAVAILABLE")
    expiring = await admit(acme, estimate=BOTH)
    clock.advance(timedelta(seconds=61))
    await core.admission.expire()
    # The late truth does not change what was booked.
    await core.admission.settle(expiring.id, BOTH, Outcome.COMPLETED, (SIGHT, READING))
    assert sorted(event.outcome for event in await events(core, clock)) == ["expired", "refunded"]


def a_split(tokens=5):
    units = Units(tokens)
    first = UsageEvent("a", "acme", "u", "chat", "m", "x", "r", 0, 1, "completed", units, units)
    second = UsageEvent("b", "acme", "u", "chat", "n", "x", "r", 0, 1, "completed", units, units, 0)
    return SplitSettlement((first, second))


@given(st.integers(0, 2**60), st.integers(0, 10_000))
def test_a_torn_settlement_is_none_of_its_events(tokens, place):
    line = frame(a_split(tokens))
    assert [record for record, _ in records(line)] == [a_split(tokens)]
    torn = line[: place % len(line)]
    assert list(records(torn)) == []
    assert [record for record, _ in records(torn + b"\n") if record is not None] in (
        [],
        [a_split(tokens)],  # only the newline was missing
    )


async def test_recovery_takes_a_split_settlement_for_closed(core, make_tenant, admit):
    await settle(core, admit, await make_tenant())
    orphan = await admit(await make_tenant("globex"))
    await core.ledger.synced()
    assert [record.id for record in scan(core.ledger.spool.folder).open] == [orphan.id]


usages = st.builds(
    Usage,
    model=st.sampled_from(["a", "b", "c", ""]),
    input_tokens=st.integers(0, 9),
    pages=st.integers(0, 9),
    images=st.integers(0, 9),
)


@given(st.lists(usages, min_size=1, max_size=6))
def test_shares_add_up_to_the_usage_with_each_model_once(parts):
    usage = Usage(
        input_tokens=sum(part.input_tokens for part in parts),
        pages=sum(part.pages for part in parts),
        images=sum(part.images for part in parts),
    )
    found = shares(usage, parts, model="a")
    assert found is not None
    assert sum(share.pages for share in found) == usage.pages
    assert {share.model for share in found} == {part.model or "a" for part in parts}
    assert len({share.model for share in found}) == len(found)


def test_an_events_id_follows_from_reservation_and_model():
    one, other = "0193a5c2-7d31-7a04-9f3e-0123456789ab", "0193a5c2-7d31-7a04-9f3e-0123456789ac"
    assert share_id(one, "m") == share_id(one, "m")
    assert len({share_id(key, model) for key in (one, other) for model in "mn"}) == 4


@pytest.fixture
async def channel(core, settings):
    async with serving_admission(core, settings) as port:
        opened = open_channel(f"127.0.0.1:{port}", tls=None)
        yield opened
        await opened.close(None)


CREDENTIAL = "a service credential"


async def test_a_service_settles_by_model_over_the_wire(core, clock, channel, make_tenant):
    await make_tenant()
    client = AdmissionClient(channel, service_credential=CREDENTIAL)
    work = WorkEstimate(capability=Capability.IMAGE_TO_TEXT, model="blip2", usage=BOTH)
    grant = await client.admit(TenantCaller("acme"), work, request_id="r", method="/x/Y")
    for _ in range(2):
        await client.settle(
            grant.reservation_id, BOTH, WireOutcome.CANCELLED, by_model=(SIGHT, READING)
        )
    seen, read = await events(core, clock)
    assert (seen.model, seen.totals.images, seen.outcome) == ("blip2", 1, "cancelled")
    assert (read.model, read.totals.pages, read.outcome) == ("tesseract", 3, "cancelled")


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([{"pages": -1}], "usage_by_model[0].pages"),
        ([{}, {"model": "x" * 201}], "usage_by_model[1].model"),
        ([{}] * 65, "usage_by_model"),
    ],
)
async def test_a_split_that_makes_no_sense_is_refused_by_field(channel, make_tenant, parts, field):
    request = pb.SettleRequest(
        reservation_id="x", usage={}, outcome=pb.OUTCOME_COMPLETED, usage_by_model=parts
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await AdmissionServiceStub(channel).Settle(
            request, metadata=(("x-atrium-service", CREDENTIAL),)
        )
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert error.field == field
