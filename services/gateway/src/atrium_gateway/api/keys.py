"""`/api/keys`: a tenant's keys, made, changed, rotated and revoked by its admins."""

from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
from msgspec import UNSET, structs

from atrium_common.errors import Conflict, InvalidArgument, NotFound
from atrium_gateway.api.decode import convert, decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.gifts import check_gift, check_roles
from atrium_gateway.api.keys_schema import (
    KeyChange,
    KeyList,
    KeyObject,
    KeyRequest,
    KeyRotation,
    KeysQuery,
    KeyWithSecret,
    OfTenant,
)
from atrium_gateway.api.names import in_utc, is_key_id
from atrium_gateway.api.reach import Reach, reach
from atrium_gateway.auth.roles import Action
from atrium_gateway.auth.terms import read_terms
from atrium_gateway.tenants.domain import ApiKey

_ENCODER = msgspec.json.Encoder()


async def list_keys(exchange: Exchange) -> None:
    """Lists the tenant's keys, revoked ones too, in pages."""
    query = convert(dict(exchange.query_params), KeysQuery)
    allowed = await reach(exchange, Action.KEYS_READ, tenant=query.tenant)
    found = await allowed.tenants.list_keys(
        allowed.tenant, after=query.after, limit=query.limit + 1
    )
    page = found[: query.limit]
    answer = KeyList(
        [_object(key) for key in page], page[-1].id if len(found) > len(page) else None
    )
    await exchange.reply(_ENCODER.encode(answer))


async def show_key(exchange: Exchange) -> None:
    """Shows one key."""
    allowed = await _reach(exchange, Action.KEYS_READ)
    await exchange.reply(_ENCODER.encode(_object(await _named(exchange, allowed))))


async def create_key(exchange: Exchange) -> None:
    """Makes a key and shows its secret, this once."""
    allowed = await _reach(exchange, Action.KEYS_WRITE)
    asked = decode(await exchange.json_body(), KeyRequest)
    desk = exchange.gateway.administration
    made = desk.new_key()
    terms = read_terms(
        scopes=asked.scopes, roles=asked.roles, models=asked.models, networks=asked.networks
    )
    key = ApiKey(
        id=made.id,
        tenant=allowed.tenant,
        name=asked.name,
        digest=made.digest,
        scopes=terms.scopes,
        roles=terms.roles,
        models=terms.models,
        networks=terms.networks,
        created_at=desk.now(),
        expires_at=in_utc(asked.expires_at, "expires_at"),
        revoked_at=None,
    )
    _check(exchange, allowed, key)
    await allowed.tenants.create_key(key)
    exchange.withhold()
    await exchange.reply(_ENCODER.encode(_with_secret(key, made.text)), status=201)


async def change_key(exchange: Exchange) -> None:
    """Changes what a key is called, may do, and until when."""
    allowed = await _reach(exchange, Action.KEYS_WRITE)
    asked = decode(await exchange.json_body(), KeyChange)
    key = await _named(exchange, allowed)
    check_roles(allowed.principal, key)
    if key.revoked_at is not None:
        raise Conflict("The key is revoked for good.")
    terms = read_terms(
        scopes=key.scopes if asked.scopes is UNSET else asked.scopes,
        roles=key.roles if asked.roles is UNSET else asked.roles,
        models=key.models if asked.models is UNSET else asked.models,
        networks=key.networks if asked.networks is UNSET else asked.networks,
    )
    changed = replace(
        key,
        name=key.name if asked.name is UNSET else asked.name,
        scopes=terms.scopes,
        roles=terms.roles,
        models=terms.models,
        networks=terms.networks,
        expires_at=key.expires_at
        if asked.expires_at is UNSET
        else in_utc(asked.expires_at, "expires_at"),
    )
    _check(exchange, allowed, changed)
    await allowed.tenants.change_key(changed)
    await exchange.reply(_ENCODER.encode(_object(changed)))


async def rotate_key(exchange: Exchange) -> None:
    """Gives a key another secret, shown this once; the old one holds for a while."""
    allowed = await _reach(exchange, Action.KEYS_WRITE)
    body = await exchange.json_body()
    asked = decode(body, KeyRotation) if body else KeyRotation()
    key = await _named(exchange, allowed)
    check_gift(allowed.principal, key)
    desk = exchange.gateway.administration
    made = desk.new_secret(key)
    rotated = await allowed.tenants.rotate_key(
        key.id, digest=made.digest, now=desk.now(), grace=timedelta(seconds=asked.grace_seconds)
    )
    exchange.withhold()
    await exchange.reply(_ENCODER.encode(_with_secret(rotated, made.text)))


async def revoke_key(exchange: Exchange) -> None:
    """Revokes a key for good; every gateway refuses it within a second."""
    allowed = await _reach(exchange, Action.KEYS_WRITE)
    key = await _named(exchange, allowed)
    check_roles(allowed.principal, key)
    await allowed.tenants.revoke_key(key.id, now=exchange.gateway.administration.now())
    await exchange.reply(_ENCODER.encode(_object(await _named(exchange, allowed))))


async def _reach(exchange: Exchange, action: Action) -> Reach:
    query = convert(dict(exchange.query_params), OfTenant)
    return await reach(exchange, action, tenant=query.tenant)


async def _named(exchange: Exchange, allowed: Reach) -> ApiKey:
    """The key of the path; another tenant's is not there."""
    named = exchange.path_params["key"]
    # What can be no key's id is not looked for: databases refuse some texts.
    key = await allowed.tenants.key(named) if is_key_id(named) else None
    if key is None or key.tenant != allowed.tenant:
        raise NotFound("There is no such key.", reason="KEY_NOT_FOUND")
    return key


def _check(exchange: Exchange, allowed: Reach, key: ApiKey) -> None:
    _check_end(key.expires_at, exchange.gateway.administration.now())
    check_gift(allowed.principal, key)


def _check_end(ends: datetime | None, now: datetime) -> None:
    if ends is not None and ends <= now:
        raise InvalidArgument("The key would have expired already.", field="expires_at")


def _object(key: ApiKey) -> KeyObject:
    return KeyObject(
        id=key.id,
        tenant=key.tenant,
        name=key.name,
        scopes=sorted(key.scopes),
        roles=sorted(key.roles),
        models=sorted(key.models),
        networks=list(key.networks),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
        previous_until=key.previous_until,
    )


def _with_secret(key: ApiKey, text: str) -> KeyWithSecret:
    return KeyWithSecret(**structs.asdict(_object(key)), key=text)
