"""Tenants, plans and API keys as plain values; the repository makes them, everyone reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from atrium_gateway.quota.limits import UTC_ZONE, Limit

TENANT_LEVEL: Final = "tenant"
"""Subject of a limit that counts all of a tenant's work."""
KEY_LEVEL: Final = "key:"
"""Begins the subject of a limit that counts one key's work; the key's id follows."""
USER_LEVEL: Final = "user:"
"""Begins the subject of a limit that counts one user's work; a token's ``sub`` follows."""


class Fallback(StrEnum):
    """What becomes of a tenant's rate limits while no store can count for all gateways."""

    LOCAL = "local"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Limits that many tenants have in common.

    Attributes:
        id: 1-64 characters of ``a-z 0-9 - _``.
        name: For people.
        limits: In a fixed order.
    """

    id: str
    name: str
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One customer of the suite.

    Attributes:
        id: 1-64 characters of ``a-z 0-9 - _``, chosen by the operator.
        name: For people.
        blocked: Nothing of it is served.
        unlimited: No limit of plan or tenant applies; those of keys and users do.
        weight: Share in fair scheduling, above 0.
        limits: Its own limits, in a fixed order.
        created_at: Aware UTC.
        plan: Id of its plan, or ``None``.
        plan_limits: The plan's limits.
        scoped: Limits of single keys and users, by subject (``"key:<id>"``,
            ``"user:<sub>"``).
        time_zone: IANA name of the zone that its days and months are of.
        fallback: Whether its rate limits are counted by each gateway alone, or its
            requests refused, while the shared store is away.
        limits_since: Grows whenever other limits come to hold, but for single ones that are
            set (those have a `since` of their own): counts of before do not hold.
    """

    id: str
    name: str
    blocked: bool
    unlimited: bool
    weight: float
    limits: tuple[Limit, ...]
    created_at: datetime
    plan: str | None = None
    plan_limits: tuple[Limit, ...] = ()
    scoped: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict, hash=False)
    time_zone: str = UTC_ZONE
    fallback: Fallback = Fallback.LOCAL
    limits_since: int = 0


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
