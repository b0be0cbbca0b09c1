"""Tenants and API keys as plain values; the repository makes them, everyone reads them."""

from dataclasses import dataclass
from datetime import datetime

from atrium_gateway.quota.limits import Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One customer of the suite.

    Attributes:
        id: 1-64 characters of ``a-z 0-9 - _``, chosen by the operator.
        name: For people.
        blocked: Nothing of it is served.
        unlimited: No limit applies.
        weight: Share in fair scheduling, above 0.
        limits: Its own limits, in a fixed order.
        created_at: Aware UTC.
    """

    id: str
    name: str
    blocked: bool
    unlimited: bool
    weight: float
    limits: tuple[Limit, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One API key, without its secret.

    Attributes:
        id: Public part of the key.
        tenant: Tenant it belongs to.
        name: For people.
        digest: HMAC-SHA256 of the whole key under the server's pepper.
        scopes: What it allows; ``"*"`` is everything.
        roles: Roles it carries.
        created_at: Aware UTC.
        expires_at: Aware UTC, or ``None``.
        revoked_at: Aware UTC, or ``None``.
        models: Ids and aliases of the models that it may use; all if empty.
        networks: Networks that it may be used from, e.g. ``10.1.0.0/16``; any if empty.
        last_used_at: Aware UTC, within a minute or so; ``None`` before the first use.
        previous_digest: Digest of the secret before the last rotation.
        previous_until: Until when that one holds, aware UTC.
    """

    id: str
    tenant: str
    name: str
    digest: bytes
    scopes: frozenset[str]
    roles: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    models: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    last_used_at: datetime | None = None
    previous_digest: bytes | None = None
    previous_until: datetime | None = None
