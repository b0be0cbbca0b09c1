"""Entries of the audit log as plain values; `tenants.py` here makes them, `log.py` keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

Fact = str | int | float | bool | Sequence[str] | None
Facts = Mapping[str, Fact]
"""What something is, for people: never a secret, nor anything that secrets derive from."""


class Action(StrEnum):
    """What was done."""

    TENANT_CREATE = "tenant.create"
    TENANT_CHANGE = "tenant.change"
    TENANT_BLOCK = "tenant.block"
    TENANT_UNBLOCK = "tenant.unblock"
    TENANT_DELETE = "tenant.delete"
    TENANT_DELETED = "tenant.deleted"
    KEY_CREATE = "key.create"
    KEY_CHANGE = "key.change"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    LIMIT_SET = "limit.set"
    LIMIT_REMOVE = "limit.remove"
    PLAN_SET = "plan.set"
    PLAN_REMOVE = "plan.remove"
    PRICES_SET = "prices.set"
    USAGE_RETAIN = "usage.retain"
    MODEL_LOAD = "model.load"
    MODEL_UNLOAD = "model.unload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes something.

    Attributes:
        subject: User, key or, for the command line, the account of the machine.
        tenant: Tenant of the credential; ``None`` for the command line.
        key_id: Id of the API key, or ``None``.
        request_id: Request that asked for it; ``""`` for the command line.
    """

    subject: str
    tenant: str | None = None
    key_id: str | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change.

    Attributes:
        id: UUIDv7, so that ids follow time.
        at: Aware UTC.
        by: Who did it.
        action: What was done.
        tenant: Whose record changed; ``None`` for what belongs to the installation.
        target: Id of what changed, e.g. of a key.
        before: What it was; ``None`` if it was not there.
        after: What it is; ``None`` if it is gone.
    """

    id: str
    at: datetime
    by: Actor
    action: Action
    tenant: str | None
    target: str
    before: Facts | None = None
    after: Facts | None = None
