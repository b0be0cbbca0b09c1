"""`GET /api/audit`: who changed what. A tenant's admins see what concerns it, operators all."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from atrium_common.errors import InvalidArgument
from atrium_gateway.api.decode import convert
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.names import STORABLE, Label, Moment, in_utc
from atrium_gateway.api.reach import reach, reach_all
from atrium_gateway.audit.domain import Action as AuditAction
from atrium_gateway.audit.domain import AuditEntry, Facts
from atrium_gateway.audit.log import AuditFilter
from atrium_gateway.auth.roles import Action

_ENCODER = msgspec.json.Encoder()
EVERYONE = "*"
"""`tenant` of a query for the entries of all tenants and of the installation."""

PageSize = Annotated[int, Meta(ge=1, le=1000)]
Target = Annotated[str, Meta(max_length=500, pattern=STORABLE)]
EntryId = Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}$(?!\n)")]
Whose = Annotated[str, Meta(pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,63})$(?!\n)")]
Value = str | int | float | bool | list[str] | None


class AuditQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/audit`; times are RFC 3339 with their zone."""

    start_time: Moment | None = None
    end_time: Moment | None = None
    action: AuditAction | None = None
    actor: Label | None = None
    target: Target | None = None
    limit: PageSize = 100
    after: EntryId | None = None
    tenant: Whose | None = None


class AuditObject(Struct, frozen=True, kw_only=True):
    """A change: who, what, on what, when, and the fields that differ."""

    id: str
    at: datetime
    actor: str
    actor_tenant: str | None
    actor_key: str | None
    request_id: str
    action: str
    tenant: str | None
    target: str
    before: dict[str, Value] | None
    after: dict[str, Value] | None


class AuditAnswer(Struct, frozen=True):
    """Answer of `GET /api/audit`, newest first; `next` goes into `after`."""

    entries: list[AuditObject]
    next: str | None


async def list_audit(exchange: Exchange) -> None:
    """Lists changes, newest first, in pages."""
    query = convert(dict(exchange.query_params), AuditQuery)
    start, end = in_utc(query.start_time, "start_time"), in_utc(query.end_time, "end_time")
    if start is not None and end is not None and end <= start:
        raise InvalidArgument("end_time must be after start_time.", field="end_time")
    if query.tenant == EVERYONE:
        allowed, whose = await reach_all(exchange, Action.AUDIT_READ), None
    else:
        allowed = await reach(exchange, Action.AUDIT_READ, tenant=query.tenant)
        whose = allowed.tenant
    wanted = AuditFilter(
        tenant=whose,
        action=query.action,
        target=query.target,
        actor=query.actor,
        start=start,
        end=end,
    )
    found = await allowed.log.entries(wanted, limit=query.limit + 1, after=query.after)
    page = found[: query.limit]
    answer = AuditAnswer(
        [_object(entry) for entry in page], page[-1].id if len(found) > len(page) else None
    )
    await exchange.reply(_ENCODER.encode(answer))


def _object(entry: AuditEntry) -> AuditObject:
    return AuditObject(
        id=entry.id,
        at=entry.at,
        actor=entry.by.subject,
        actor_tenant=entry.by.tenant,
        actor_key=entry.by.key_id,
        request_id=entry.by.request_id,
        action=entry.action.value,
        tenant=entry.tenant,
        target=entry.target,
        before=None if entry.before is None else _plain(entry.before),
        after=None if entry.after is None else _plain(entry.after),
    )


def _plain(facts: Facts) -> dict[str, Value]:
    return {
        name: value if isinstance(value, str | int | float | None) else list(value)
        for name, value in facts.items()
    }
