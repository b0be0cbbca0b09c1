"""Keys bound to models and networks, rotated with grace, and when they were last used."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from atrium_common.admission_client import AdmissionClient, TokenCaller
from atrium_common.catalogue import Catalogue
from atrium_common.channels import open_channel
from atrium_common.domain import Capability, Usage
from atrium_common.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from atrium_common.service import WorkEstimate
from atrium_gateway.admission_server import serving_admission
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.key_uses import KeyUses
from atrium_gateway.auth.keys import key_id_of, make_key, renew_key
from atrium_gateway.auth.networks import client_address, read_networks, within
from atrium_gateway.auth.terms import read_terms
from atrium_gateway.cli.app import app
from atrium_gateway.core import open_tenants, token_authority
from atrium_gateway.identity import model_ids
from atrium_gateway.middleware.proxies import TrustedProxies, address_of
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.domain import ApiKey, Tenant

NOON = datetime(2026, 3, 14, 12, 30, tzinfo=UTC)
PEPPER = b"pepper-pepper-pepper-pepper-pepp"
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def api_key(made, **changes) -> ApiKey:
    fields = {
        "id": made.id,
        "tenant": "acme",
        "name": "",
        "digest": made.digest,
        "scopes": frozenset({"*"}),
        "roles": frozenset(),
        "created_at": NOON,
        "expires_at": None,
        "revoked_at": None,
    }
    return ApiKey(**{**fields, **changes})


@pytest.fixture
async def tenants(settings):
    async with open_tenants(settings) as (opened, _):
        acme = {"id": "acme", "name": "Acme", "blocked": False, "unlimited": False}
        await opened.create_tenant(Tenant(**acme, weight=1.0, limits=(), created_at=NOON))
        yield opened


@pytest.fixture
def noted() -> list[str]:
    return []


@pytest.fixture
def authenticator(tenants, settings, clock, noted):
    return Authenticator(
        directory=Directory(tenants, clock=clock),
        tokens=token_authority(settings, clock=clock),
        pepper=PEPPER,
        clock=clock,
        note_use=noted.append,
    )


@pytest.fixture
def add_key(tenants):
    async def add(**changes):
        made = make_key(PEPPER)
        await tenants.create_key(api_key(made, **changes))
        return made

    return add


async def refused(authenticator, text, reason, address=""):
    with pytest.raises((Unauthenticated, PermissionDenied)) as caught:
        await authenticator.authenticate(text, address=address)
    assert caught.value.reason == reason


async def test_a_key_bound_to_networks_holds_from_there_alone(authenticator, add_key):
    made = await add_key(networks=("10.1.0.0/16", "2001:db8::/32"))
    for address in ("10.1.2.3", "2001:db8::7", "::ffff:10.1.9.9"):
        assert (await authenticator.authenticate(made.text, address=address)).key_id == made.id
    for address in ("10.2.0.1", "::1", "", "unix", "10.1.2.3.4"):
        await refused(authenticator, made.text, "KEY_NETWORK", address)
    free = await add_key()
    assert await authenticator.authenticate(free.text)


def test_a_proxy_is_believed_only_where_it_is_trusted():
    trusted = read_networks(["10.0.0.0/8", "::1/128"])
    for peer, forwarded, address in (
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "6.6.6.6, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "192.0.2.1:5000", "192.0.2.1"),
        ("::1", "[2001:db8::5]:443", "2001:db8::5"),
        ("::1", "2001:db8::5", "2001:db8::5"),
        ("10.0.0.1", "192.0.2.1, nonsense", ""),
        ("10.0.0.1", ",", ""),
        ("10.0.0.1", "192.0.2.1%eth0", ""),
        ("10.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("", "192.0.2.1", ""),
    ):
        assert client_address(peer, forwarded, trusted) == address, (peer, forwarded)


def test_a_network_of_ipv4_may_be_written_as_ipv6():
    mapped = read_networks(["::ffff:10.1.0.0/112", "::ffff:192.0.2.1"])
    assert [str(network) for network in mapped] == ["10.1.0.0/16", "192.0.2.1/32"]
    assert within("10.1.2.3", mapped)
    assert within("::ffff:192.0.2.1", mapped)
    assert not within("10.2.0.1", mapped)
    with pytest.raises(ValueError, match="link"):
        read_networks(["fe80::1%eth0"])


@given(st.text(max_size=200), st.sampled_from(["203.0.113.9", "10.0.0.1", "", "x"]))
def test_only_a_trusted_proxys_word_counts_and_it_names_an_address(forwarded, peer):
    address = client_address(peer, forwarded, read_networks(["10.0.0.1/32"]))
    assert address == peer or peer == "10.0.0.1"
    assert address in ("", peer) or within(address, read_networks(["0.0.0.0/0", "::/0"]))


async def test_the_server_puts_the_callers_address_in_the_place_of_its_proxys():
    seen = []

    async def serve(scope, receive, send):
        seen.append(address_of(scope))

    wrapped = TrustedProxies(serve, read_networks(["10.0.0.0/8"]))
    headers = [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-for", b"10.0.0.2")]
    for client in (("10.0.0.1", 5), ("203.0.113.9", 5), None):
        await wrapped({"type": "http", "client": client, "headers": headers}, None, None)
    assert seen == ["192.0.2.1", "203.0.113.9", ""]


async def test_a_key_for_some_models_is_refused_others_by_name(core, settings, make_tenant):
    await make_tenant()
    made = make_key(settings.resolved_key_pepper())
    await core.tenants.create_key(api_key(made, models=frozenset({"small"})))
    principal = await core.authenticator.authenticate(made.text)
    assert principal.models == frozenset()
    with pytest.raises(PermissionDenied, match="'m'") as caught:
        await core.admission.admit(
            principal, capability="chat", model="m", estimate=Usage(), request_id="r", method="x"
        )
    assert (caught.value.reason, caught.value.field) == ("MODEL_NOT_ALLOWED", "model")
    assert core.admission.open_reservations == 0


def test_an_alias_stands_for_every_model_that_has_it():
    def entry(name, capability, *aliases):
        return {
            "id": name,
            "service": "llm",
            "capabilities": [capability],
            "engine": "fake",
            "aliases": aliases,
        }

    catalogue = Catalogue.model_validate(
        {"models": [entry("a", "chat", "gpt"), entry("b", "embedding", "gpt"), entry("c", "chat")]}
    )
    assert model_ids(catalogue, frozenset({"gpt"})) == {"a", "b"}
    assert model_ids(catalogue, frozenset({"c", "gone"})) == {"c"}
    assert model_ids(catalogue, frozenset()) == frozenset()


async def test_callers_of_grpc_stand_under_the_same_rules(core, settings, make_tenant):
    await make_tenant()
    pepper = settings.resolved_key_pepper()
    near, other, only, free = (make_key(pepper) for _ in range(4))
    await core.tenants.create_key(api_key(only, models=frozenset({"m"})))
    await core.tenants.create_key(api_key(free))
    await core.tenants.create_key(api_key(near, networks=("192.0.2.0/24",)))
    await core.tenants.create_key(api_key(other, models=frozenset({"another"})))
    behind = settings.model_copy(update={"trusted_proxies": ("10.0.0.1",)})
    work = WorkEstimate(capability=Capability.CHAT, model="m", usage=Usage())
    async with serving_admission(core, behind) as port:
        channel = open_channel(f"127.0.0.1:{port}", tls=None)
        client = AdmissionClient(channel, service_credential="a service credential")

        async def admit(*caller: str) -> str:
            try:
                await client.admit(TokenCaller(*caller), work, request_id="r", method="/x/Y")
            except PermissionDenied as err:
                return err.reason
            return "admitted"

        assert await admit(near.text, "192.0.2.7") == "admitted"
        assert await admit(near.text, "10.0.0.1", "192.0.2.7") == "admitted"
        assert await admit(near.text, "10.0.0.2", "192.0.2.7") == "KEY_NETWORK"
        assert await admit(near.text) == "KEY_NETWORK"
        assert await admit(other.text, "192.0.2.7") == "MODEL_NOT_ALLOWED"
        work = replace(work, others=("another",))
        assert await admit(free.text) == "admitted"
        assert await admit(only.text) == "MODEL_NOT_ALLOWED"
        await channel.close(None)


async def test_a_rotated_key_holds_with_both_secrets_until_the_grace_is_over(
    authenticator, tenants, add_key, clock
):
    first = await add_key()
    principal = await authenticator.authenticate(first.text)
    second = renew_key(first.id, PEPPER)
    await tenants.rotate_key(first.id, digest=second.digest, now=NOON, grace=HOUR)
    clock.advance(SECOND)
    for text in (first.text, second.text):
        assert (await authenticator.authenticate(text)).key_id == principal.key_id
    clock.advance(HOUR - 2 * SECOND)
    assert await authenticator.authenticate(first.text)
    clock.advance(SECOND)
    await refused(authenticator, first.text, "KEY_ROTATED")
    assert await authenticator.authenticate(second.text)


async def test_never_more_than_two_secrets_hold(authenticator, tenants, add_key, clock):
    first = await add_key()
    second, third = renew_key(first.id, PEPPER), renew_key(first.id, PEPPER)
    for made in (second, third):
        await tenants.rotate_key(first.id, digest=made.digest, now=NOON, grace=HOUR)
    await refused(authenticator, first.text, "KEY_INVALID")
    assert await authenticator.authenticate(second.text)
    assert await authenticator.authenticate(third.text)
    await tenants.revoke_key(first.id, now=NOON)
    clock.advance(SECOND)
    for made in (second, third):
        await refused(authenticator, made.text, "KEY_REVOKED")
    with pytest.raises(Conflict):
        await tenants.rotate_key(first.id, digest=bytes(32), now=NOON, grace=HOUR)
    with pytest.raises(NotFound):
        await tenants.rotate_key("nobody", digest=bytes(32), now=NOON, grace=HOUR)


async def test_a_rotation_keeps_the_keys_own_end(authenticator, tenants, add_key, clock):
    first = await add_key(expires_at=NOON + timedelta(minutes=10))
    second = renew_key(first.id, PEPPER)
    await tenants.rotate_key(first.id, digest=second.digest, now=NOON, grace=HOUR)
    for text in (first.text, second.text):
        principal = await authenticator.authenticate(text)
        assert principal.expires_at == NOON + timedelta(minutes=10)
    clock.advance(timedelta(minutes=10))
    for text in (first.text, second.text):
        await refused(authenticator, text, "KEY_EXPIRED")


async def test_uses_are_written_together_and_never_moved_back(tenants, add_key, clock):
    made, never = await add_key(), await add_key()
    version = await tenants.version()
    uses = KeyUses(tenants.note_uses, clock=clock)
    async with uses.writing(every=0.01):
        for _ in range(100):
            uses.note(made.id)
        async with asyncio.timeout(5):
            while (await tenants.key(made.id)).last_used_at is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        clock.advance(timedelta(minutes=5))
        uses.note(made.id)
    assert (await tenants.key(made.id)).last_used_at == NOON + timedelta(minutes=5)
    await tenants.note_uses({made.id: NOON, "gone": NOON})
    assert (await tenants.key(made.id)).last_used_at == NOON + timedelta(minutes=5)
    assert (await tenants.key(never.id)).last_used_at is None
    assert await tenants.version() == version


async def test_while_the_database_is_away_uses_are_kept(clock):
    written, away = [], True

    async def write(uses):
        if away:
            raise OperationalError("x", {}, OSError())
        written.append(dict(uses))

    uses = KeyUses(write, clock=clock)
    uses.note("a")
    await uses.flush()
    uses.note("b")
    away = False
    await uses.flush()
    await uses.flush()
    assert written == [{"a": NOON, "b": NOON}]


async def test_every_use_is_noted_even_of_a_known_key(authenticator, add_key, noted):
    made = await add_key(networks=("10.0.0.0/8",))
    for _ in range(2):
        await authenticator.authenticate(made.text, address="10.0.0.1")
    await refused(authenticator, made.text, "KEY_NETWORK", "192.0.2.1")
    assert noted == [made.id] * 2


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"scopes": ["chess"]}, "scopes"),
        ({"scopes": [""]}, "scopes"),
        ({"scopes": ["*"], "roles": ["root"]}, "roles"),
        ({"scopes": ["*"], "models": ["a b"]}, "models"),
        ({"scopes": ["*"], "networks": ["10.1.2.3/16"]}, "networks"),
        ({"scopes": ["*"], "networks": ["localhost"]}, "networks"),
        ({"scopes": ["*"], "models": [f"m{n}" for n in range(65)]}, "models"),
    ],
)
def test_terms_that_make_no_sense_are_refused_by_field(terms, field):
    with pytest.raises(InvalidArgument) as caught:
        read_terms(**terms)
    assert caught.value.field == field


def test_terms_are_read():
    terms = read_terms(
        scopes=["chat", "keys", "usage:read"], roles=["admin"], networks=["10.1.0.0/16", "::1"]
    )
    assert terms.scopes == {"chat", "keys", "usage:read"}
    assert (terms.roles, terms.networks) == ({"admin"}, ("10.1.0.0/16", "::1/128"))


async def test_on_the_command_line_a_key_is_made_rotated_and_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("ATRIUM_STATE_DIR", str(tmp_path))

    async def atrium(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout.strip()

    rules = ("--role", "viewer", "--model", "gpt-4", "--network", "10.0.0.0/8", "--scope", "usage")
    made = json.loads(await atrium("key", "create", "acme", "--unlimited-tenant", "--json", *rules))
    assert (made["roles"], made["models"]) == (["viewer"], ["gpt-4"])
    assert (made["scopes"], made["networks"]) == (["usage"], ["10.0.0.0/8"])
    text = await atrium("key", "rotate", made["key"], "--grace-hours", "2")
    assert key_id_of(text) == made["id"]
    assert text != made["key"]
    (kept,) = json.loads(await atrium("key", "list", "acme", "--json"))
    until = datetime.fromisoformat(kept["old_secret_until"])
    assert HOUR < until - datetime.now(UTC) <= 2 * HOUR
    for wrong in ("nobody", "aaaaaaaaaaaa"):
        with pytest.raises(NotFound):
            await atrium("key", "rotate", wrong)
