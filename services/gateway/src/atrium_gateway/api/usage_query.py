"""What all endpoints under `/api/usage` do with their parameters: who, when, which, how."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from atrium_common.errors import InvalidArgument
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.usage_schema import Counts, UsageFilters
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.roles import Action
from atrium_gateway.usage.reports import Bucket, Filters, Totals
from atrium_gateway.usage.reports_calendar import EPOCH, LAST

DEFAULT_PERIOD = timedelta(days=30)
_LONGEST_MINUTES = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_REPEATED = frozenset({"capability", "model", "key", "user", "status"})

Place = tuple[int | str, ...]


class _Page(msgspec.Struct, frozen=True, array_like=True):
    """What a page's name holds: the report that it belongs to, and after which group it is."""

    report: str
    start: datetime
    end: datetime
    place: list[int | str]


def parameters(exchange: Exchange, *, lists: frozenset[str] = frozenset()) -> dict[str, object]:
    """The query as it is decoded; `lists` may be divided by commas, filters are repeated.

    Raises:
        InvalidArgument: What can be said once is said twice.
    """
    query = exchange.query_params
    for name in query:
        if name not in lists and name not in _REPEATED and len(query.getlist(name)) > 1:
            raise InvalidArgument(f"{name} is given more than once.", field=name)
    return {
        # "?group_by=model,day" and "?group_by=model&group_by=day" say the same; a user's name
        # may hold a comma.
        name: ",".join(query.getlist(name)).split(",")
        if name in lists
        else query.getlist(name)
        if name in _REPEATED
        else query[name]
        for name in query
    }


def whose(principal: Principal, asked: str | None) -> str:
    """Gives the tenant whose usage may be shown.

    Raises:
        PermissionDenied: Another tenant's, without the role `operator`; or neither roles
            nor scopes cover usage.
    """
    tenant = asked or principal.tenant
    principal.demand(Action.USAGE_READ, tenant=tenant)
    return tenant


def filters_of(query: UsageFilters) -> Filters:
    """Which events a query means."""
    return Filters(
        capability=tuple(query.capability),
        model=tuple(query.model),
        key=tuple(query.key),
        user=tuple(query.user),
        status=tuple(query.status),
    )


def period(
    exchange: Exchange, query: UsageFilters, *, bucket: Bucket | None = None
) -> tuple[datetime, datetime]:
    """The times between which is asked: the last 30 days, or a day by minutes, if not said."""
    # Up to the next second: what was admitted in this millisecond is in it.
    until = query.end_time or exchange.gateway.now().replace(microsecond=0) + _SECOND
    until = _clamped(until)
    span = _LONGEST_MINUTES if bucket is Bucket.MINUTE else DEFAULT_PERIOD
    start = query.start_time or max(until - span, EPOCH)
    return _clamped(start), until


def _clamped(moment: datetime) -> datetime:
    """The nearest time that a report may begin or end at."""
    return min(max(moment, EPOCH), LAST)


def page_name(report: str, start: datetime, end: datetime, place: Sequence[int | str]) -> str:
    """Names the page after `place`, for the next request."""
    content = msgspec.json.encode(_Page(report, start, end, list(place)))
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def page_of(name: str, report: str) -> tuple[datetime, datetime, Place]:
    """The period and the place that `page_name` put into a name.

    Raises:
        InvalidArgument: It is no such name, or that of another report's page.
    """
    try:
        content = base64.b64decode(name + "=" * (-len(name) % 4), altchars=b"-_", validate=True)
        page = msgspec.json.decode(content, type=_Page)
    except (ValueError, msgspec.DecodeError) as err:
        raise InvalidArgument("page names no page.", field="page") from err
    if page.report != report or page.start.tzinfo is None or page.end.tzinfo is None:
        raise InvalidArgument("page belongs to another report.", field="page")
    return _clamped(page.start), _clamped(page.end), tuple(page.place)


def money(amount: Decimal) -> str:
    """An amount as text, without an exponent and trailing zeros."""
    return f"{amount.normalize():f}"


def counts(totals: Totals) -> Counts:
    """Totals in the units that callers see."""
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
        cost=money(totals.cost),
    )


_NATIVE: Mapping[str, tuple[str, int]] = {
    "input_audio_ms": ("input_audio", 1000),
    "output_audio_ms": ("output_audio", 1000),
    "millimegapixel_steps": ("megapixel_steps", 1000),
}


def native(field: str, count: int) -> tuple[str, int | float]:
    """An internal count under the name and in the unit that callers see."""
    name, scale = _NATIVE.get(field, (field, 1))
    return name, count if scale == 1 else count / scale
