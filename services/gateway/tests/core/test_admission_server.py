"""AdmissionService over a real socket: trusted callers only, the tree's errors, exactly once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import grpc.aio
import pytest

from atrium.admission.v1 import admission_pb2 as pb
from atrium.admission.v1.admission_pb2_grpc import AdmissionServiceStub
from atrium_common.admission_client import (
    AdmissionClient,
    TenantCaller,
    TokenCaller,
)
from atrium_common.admission_client import Outcome as WireOutcome
from atrium_common.channels import open_channel
from atrium_common.domain import Capability, Usage
from atrium_common.errors import (
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.service import WorkEstimate
from atrium_gateway import admission_server
from atrium_gateway.admission_server import serving_admission
from atrium_gateway.auth.keys import make_key
from atrium_gateway.quota.limits import Limit, Unit, Window
from atrium_gateway.tenants.domain import ApiKey
from atrium_gateway.usage.recovery import scan

CREDENTIAL = "a service credential"
WORK = WorkEstimate(capability=Capability.CHAT, model="m", usage=Usage(output_tokens=10))


@pytest.fixture
async def channel(core, settings):
    async with serving_admission(core, settings) as port:
        opened = open_channel(f"127.0.0.1:{port}", tls=None)
        yield opened
        await opened.close(None)


@pytest.fixture
def client(channel):
    return AdmissionClient(channel, service_credential=CREDENTIAL)


async def add_key(core, settings, clock, tenant="acme"):
    made = make_key(settings.resolved_key_pepper())
    await core.tenants.create_key(
        ApiKey(
            id=made.id,
            tenant=tenant,
            name="",
            digest=made.digest,
            scopes=frozenset({"chat"}),
            roles=frozenset(),
            created_at=datetime.fromtimestamp(clock(), UTC),
            expires_at=None,
            revoked_at=None,
        )
    )
    return made


async def admit(client, caller=None, work=WORK):
    return await client.admit(caller or TenantCaller("acme"), work, request_id="r", method="/x/Y")


async def test_what_a_service_was_granted_is_on_disk_before_it_is_told(
    core, client, make_tenant, settings
):
    """The service works and answers even if the gateway is killed at once."""
    await make_tenant()
    for number in range(1, 4):
        grant = await admit(client)
        opened = scan(settings.spool_dir).open
        assert len(opened) == number
        assert opened[-1].id == grant.reservation_id
    await client.renew(grant.reservation_id, Usage(output_tokens=40))
    assert scan(settings.spool_dir).open[-1].reserved.output_tokens == 40


async def test_what_can_not_be_noted_is_not_granted(core, client, make_tenant, monkeypatch):
    await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.CONCURRENT, 1))

    async def refuse() -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(core.ledger.spool, "sync", refuse)
    with pytest.raises(Unavailable):
        await admit(client)
    monkeypatch.undo()
    assert core.admission.open_reservations == 0
    await admit(client)  # the slot is free


async def test_a_call_is_admitted_renewed_and_settled_once(core, clock, client, make_tenant):
    await make_tenant()
    grant = await admit(client)
    assert (grant.tenant, grant.weight, grant.lease.total_seconds()) == ("acme", 1.0, 60)
    await client.renew(grant.reservation_id, Usage(output_tokens=40))
    for amount in (7, 8):
        await client.settle(
            grant.reservation_id, Usage(output_tokens=amount), WireOutcome.COMPLETED
        )
    await client.refund(grant.reservation_id, "LATE")
    now = datetime.fromtimestamp(clock(), UTC)
    (event,) = await core.reports.events(
        "acme", start=now - timedelta(hours=1), end=now + timedelta(hours=1)
    )
    assert (event.totals.output_tokens, event.reserved) == (7, {"output_tokens": 40})


async def test_a_tenants_own_key_and_token_are_read_here(
    core, settings, clock, client, make_tenant
):
    await make_tenant()
    made = await add_key(core, settings, clock)
    assert (await admit(client, TokenCaller(made.text))).subject == f"key:{made.id}"
    with pytest.raises(Unauthenticated):
        await admit(client, TokenCaller("atr_nonsense"))
    with pytest.raises(PermissionDenied):
        await admit(
            client,
            TokenCaller(made.text),
            WorkEstimate(capability=Capability.EMBEDDING, model="m", usage=Usage()),
        )


async def test_refusals_keep_their_kind_over_the_wire(client, make_tenant):
    await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.HOUR, 20))
    results = await asyncio.gather(*(admit(client) for _ in range(50)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, QuotaExceeded)]
    assert len(refused) == 30
    (violation,) = refused[0].violations
    assert (violation.unit, violation.limit, violation.remaining) == ("requests", 20, 0)
    assert refused[0].retry_after is not None
    await make_tenant("bad", blocked=True)
    with pytest.raises(PermissionDenied):
        await admit(client, TenantCaller("bad"))
    with pytest.raises(Unauthenticated):
        await admit(client, TenantCaller("nobody"))
    with pytest.raises(NotFound):
        await client.renew("gone")


async def test_only_the_suite_may_ask(core, channel, settings, clock, make_tenant):
    await make_tenant()
    made = await add_key(core, settings, clock)
    request = pb.AdmitRequest(tenant="acme", capability="chat", model="m")
    stub = AdmissionServiceStub(channel)
    for metadata in (
        (),
        (("x-atrium-service", "wrong credential"),),
        (("authorization", f"Bearer {made.text}"),),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Admit(request, metadata=metadata)
        assert caught.value.code() in (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        )
    assert core.admission.open_reservations == 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AdmitRequest(capability="chat", model="m"), "caller"),
        (pb.AdmitRequest(tenant="acme", capability="chess", model="m"), "capability"),
        (pb.AdmitRequest(tenant="acme", capability="chat"), "model"),
        (pb.AdmitRequest(tenant="acme", capability="chat", model="m", method="x" * 201), "method"),
        (
            pb.AdmitRequest(
                tenant="acme", capability="chat", model="m", estimate={"output_tokens": -1}
            ),
            "estimate.output_tokens",
        ),
        (
            pb.AdmitRequest(
                tenant="acme",
                capability="chat",
                model="m",
                estimate={"input_audio": {"seconds": -1}},
            ),
            "estimate.input_audio",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_request_that_makes_no_sense_is_refused_by_field(
    channel, make_tenant, request_, field
):
    await make_tenant()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await AdmissionServiceStub(channel).Admit(
            request_, metadata=(("x-atrium-service", CREDENTIAL),)
        )
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert error.field == field


async def test_a_settlement_states_usage_and_outcome(client, channel, make_tenant):
    await make_tenant()
    grant = await admit(client)
    stub = AdmissionServiceStub(channel)
    for request in (
        pb.SettleRequest(reservation_id=grant.reservation_id, usage={}),
        pb.SettleRequest(reservation_id=grant.reservation_id, outcome=pb.OUTCOME_COMPLETED),
        pb.SettleRequest(
            reservation_id=grant.reservation_id,
            usage={"output_tokens": -5},
            outcome=pb.OUTCOME_COMPLETED,
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Settle(request, metadata=(("x-atrium-service", CREDENTIAL),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_a_credential_admission_is_not_served(core, settings):
    bare = settings.model_copy(update={"service_credential": None})
    with pytest.raises(InvalidArgument):
        async with serving_admission(core, bare):
            pytest.fail("served to anyone")


async def test_fifteen_hundred_at_once_are_all_answered(core, channel, make_tenant):
    """What waits for the loop waits: grpc's own bound of a thousand would cancel some."""
    await make_tenant("acme", Limit("chat", Unit.REQUESTS, Window.HOUR, 1490))
    # That all are answered is asked here, not how soon: a busy machine needs its time.
    patient = AdmissionClient(channel, service_credential=CREDENTIAL, timeout=timedelta(minutes=2))

    async def one():
        try:
            await admit(patient)
        except QuotaExceeded:
            return False
        return True

    said = Counter(await asyncio.gather(*(one() for _ in range(1500))))
    assert said == {True: 1490, False: 10}


async def test_more_than_the_edge_holds_are_told_when_to_come_back(
    core, settings, make_tenant, monkeypatch
):
    await make_tenant()
    monkeypatch.setattr(admission_server, "_MAX_CONCURRENT", 10)
    release = asyncio.Event()
    monkeypatch.setattr(core.ledger, "synced", release.wait)
    async with serving_admission(core, settings) as port:
        channel = open_channel(f"127.0.0.1:{port}", tls=None)
        client = AdmissionClient(channel, service_credential=CREDENTIAL)
        asked = [asyncio.ensure_future(admit(client)) for _ in range(50)]
        refused, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
        while len(refused) < 40:
            more, _ = await asyncio.wait(set(asked) - refused, return_when=asyncio.FIRST_COMPLETED)
            refused |= more
        release.set()
        await asyncio.gather(*(task for task in asked if task not in refused))
        await channel.close(None)
    errors = [task.exception() for task in refused]
    assert all(isinstance(err, Overloaded) and err.retry_after for err in errors)
