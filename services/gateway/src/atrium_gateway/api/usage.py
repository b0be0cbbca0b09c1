"""`GET /api/usage` and `/api/usage/events`: what a tenant consumed. A tenant sees itself."""

from datetime import datetime, timedelta

import msgspec

from atrium_common.errors import PermissionDenied
from atrium_gateway.api.decode import convert
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.usage_schema import (
    Counts,
    EventObject,
    EventsAnswer,
    EventsQuery,
    GroupView,
    UsageAnswer,
    UsageQuery,
)
from atrium_gateway.auth.principal import Principal
from atrium_gateway.usage.reports import EventView, Group, Totals

_ENCODER = msgspec.json.Encoder()
SCOPE = "usage"
OPERATOR = "operator"
"""Role of those who run the installation; roles such as `admin` hold inside a tenant."""
DEFAULT_PERIOD = timedelta(days=30)


async def show_usage(exchange: Exchange) -> None:
    """Sums what was consumed, in all and by the groups asked for."""
    principal = await exchange.authenticate()
    query = convert(_parameters(exchange, lists={"group_by"}), UsageQuery)
    tenant = whose(principal, query.tenant)
    start, end = _period(exchange, query.start_time, query.end_time)
    reports = exchange.gateway.reports
    totals = await reports.totals(tenant, start=start, end=end)
    groups = []
    if query.group_by:
        by = [Group(name) for name in query.group_by]
        groups = list(await reports.groups(tenant, start=start, end=end, by=by))
    answer = UsageAnswer(
        tenant=tenant,
        start_time=start,
        end_time=end,
        totals=_counts(totals),
        groups=[
            GroupView(
                totals=_counts(group.totals),
                start_time=group.start,
                capability=group.capability,
                model=group.model,
            )
            for group in groups
        ],
    )
    await exchange.reply(_ENCODER.encode(answer))


async def list_usage_events(exchange: Exchange) -> None:
    """Lists single requests, newest first, in pages."""
    principal = await exchange.authenticate()
    query = convert(_parameters(exchange), EventsQuery)
    tenant = whose(principal, query.tenant)
    start, end = _period(exchange, query.start_time, query.end_time)
    events = await exchange.gateway.reports.events(
        tenant, start=start, end=end, limit=query.limit, after=query.after
    )
    answer = EventsAnswer(
        tenant=tenant,
        events=[_event(event) for event in events],
        next=events[-1].id if len(events) == query.limit else None,
    )
    await exchange.reply(_ENCODER.encode(answer))


def whose(principal: Principal, asked: str | None) -> str:
    """Gives the tenant whose usage may be shown.

    Raises:
        PermissionDenied: Another tenant's, without the role `operator`; or the
            credential's scopes do not cover usage.
    """
    if not principal.allows(SCOPE):
        raise PermissionDenied(f"The credential does not allow {SCOPE}.", reason="SCOPE_MISSING")
    if asked is None or asked == principal.tenant:
        return principal.tenant
    if OPERATOR not in principal.roles:
        raise PermissionDenied("A tenant sees only its own usage.", field="tenant")
    return asked


def _parameters(exchange: Exchange, lists: set[str] | None = None) -> dict[str, object]:
    query = exchange.query_params
    return {
        # "?group_by=model,day" and "?group_by=model&group_by=day" say the same.
        name: ",".join(query.getlist(name)).split(",") if name in (lists or ()) else query[name]
        for name in query
    }


def _period(
    exchange: Exchange, start: datetime | None, end: datetime | None
) -> tuple[datetime, datetime]:
    until = end or exchange.gateway.now()
    return start or until - DEFAULT_PERIOD, until


def _counts(totals: Totals) -> Counts:
    return Counts(
        requests=totals.requests,
        refunded=totals.refunded,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cached_input_tokens=totals.cached_input_tokens,
        characters=totals.characters,
        input_audio=totals.input_audio.total_seconds(),
        output_audio=totals.output_audio.total_seconds(),
        images=totals.images,
        megapixel_steps=totals.millimegapixel_steps / 1000,
        pages=totals.pages,
        inference_time=totals.inference_time.total_seconds(),
        cost=f"{totals.cost:f}",
    )


def _event(event: EventView) -> EventObject:
    return EventObject(
        id=event.id,
        subject=event.subject,
        key_id=event.key_id,
        capability=event.capability,
        model=event.model,
        engine=event.engine,
        method=event.method,
        request_id=event.request_id,
        started_at=event.started_at,
        ended_at=event.ended_at,
        outcome=event.outcome,
        reason=event.reason,
        estimated=event.estimated,
        price_version=event.price_version,
        totals=_counts(event.totals),
    )
