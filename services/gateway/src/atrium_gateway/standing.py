"""Where a tenant stands: its calendar, and what is left of every limit that applies.

`/api/usage/summary` and `/api/limits` ask it; built by `core.open_core`. What is used is what
the counters say, so work that runs is in it as it is reserved. While the shared store is away
the ledger tells it, without that work.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

from atrium_common.catalogue import Catalogue
from atrium_common.errors import Unavailable
from atrium_gateway.auth.principal import Principal
from atrium_gateway.quota.counters import window_bounds
from atrium_gateway.quota.limits import (
    LEDGERED,
    WINDOW_LENGTH,
    Meter,
    Unit,
    Window,
)
from atrium_gateway.quota.policy import LimitPolicy
from atrium_gateway.quota.verdict import Reading
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.usage.consumption import filters_of
from atrium_gateway.usage.reports import Totals, UsageReports
from atrium_gateway.usage.reports_calendar import EPOCH, moment_of, unix_ms, zone_of

_MICRO: Final = 1_000_000
_MILLISECOND: Final = timedelta(milliseconds=1)

_USED: Final[dict[Unit, Callable[[Totals], int]]] = {
    Unit.REQUESTS: lambda totals: totals.requests,
    Unit.TOKENS: lambda totals: totals.input_tokens + totals.output_tokens,
    Unit.AUDIO_SECONDS: lambda totals: (totals.input_audio + totals.output_audio) // _MILLISECOND,
    Unit.CHARACTERS: lambda totals: totals.characters,
    Unit.IMAGES: lambda totals: totals.images,
    Unit.MEGAPIXEL_STEPS: lambda totals: totals.millimegapixel_steps,
    Unit.PAGES: lambda totals: totals.pages,
    Unit.GPU_MILLISECONDS: lambda totals: totals.inference_time // _MILLISECOND,
    Unit.COST: lambda totals: -int(-totals.cost * _MICRO // 1),
}
"""What totals are of each unit, in internal counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStanding:
    """One limit and what is left of it; amounts are exact numbers of its unit.

    Attributes:
        meter: The limit.
        limit: Amount allowed in a window; cost in the currency.
        used: Amount used in the running window, or running at once; of a minute's limit, what
            has not drained yet. ``None`` where nobody can tell now.
        resets: When the window begins anew; ``None`` if it does not, or does steadily.
        forecast: Amount at the window's end, if it goes on as it began; ``None`` where no
            window ends.
        exhausted: When the limit is reached at that rate; ``None`` if it is not before then.
    """

    meter: Meter
    limit: Decimal
    used: Decimal | None
    resets: datetime | None
    forecast: Decimal | None
    exhausted: datetime | None

    @property
    def remaining(self) -> Decimal | None:
        """Amount that is left, 0 or more."""
        return None if self.used is None else max(self.limit - self.used, Decimal())


class Standing:
    """Knows tenants' calendars and limits, and asks the ledger what they used.

    Args:
        directory: Knows tenants.
        policy: Picks the limits that apply.
        reports: Tell what was used.
        peek: Reads counters of a tenant; raises `Unavailable` where the store is away.
        catalogue: Names the models that limits may bind.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        policy: LimitPolicy,
        reports: UsageReports,
        peek: Callable[[str, Sequence[Meter]], Awaitable[Sequence[Reading]]],
        catalogue: Catalogue,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._policy = policy
        self._reports = reports
        self._peek = peek
        self._catalogue = catalogue
        self._clock = clock

    async def zone(self, tenant_id: str) -> tzinfo:
        """Whose days and months are the tenant's; UTC for one that is no more.

        Raises:
            Unavailable: It is not known yet and the database is away.
        """
        tenant = await self._directory.tenant(tenant_id)
        return UTC if tenant is None else zone_of(tenant.time_zone)

    async def limits(self, principal: Principal) -> Sequence[LimitStanding]:
        """Every limit that binds a caller in anything that the catalogue offers.

        Raises:
            Unavailable: Disk or database refuse.
        """
        tenant = await self._directory.tenant(principal.tenant)
        if tenant is None:
            return ()
        offered = {
            (str(capability), entry.id)
            for entry in self._catalogue.models
            for capability in entry.capabilities
        }
        meters = {
            meter.key: meter
            for capability, model in sorted(offered)
            for meter in self._policy.meters(tenant, principal, capability, model)
        }
        return await self.of(tenant.id, _ordered(meters.values()))

    async def of(self, tenant: str, meters: Sequence[Meter]) -> Sequence[LimitStanding]:
        """Some limits of a tenant, in their order.

        Raises:
            Unavailable: Disk or database refuse.
        """
        now = int(self._clock() * 1000)
        try:
            readings: Sequence[Reading | None] = await self._peek(tenant, meters)
        except Unavailable:
            readings = [None] * len(meters)
        return [
            await self._standing(tenant, meter, reading, now)
            for meter, reading in zip(meters, readings, strict=True)
        ]

    async def _standing(
        self, tenant: str, meter: Meter, reading: Reading | None, now: int
    ) -> LimitStanding:
        unit = _MICRO if meter.unit is Unit.COST else meter.scale
        limit = Decimal(meter.limit) / unit
        start, end = _window(meter, now)
        counted = reading.used if reading else await self._recorded(tenant, meter, start, now)
        used = None if counted is None else Decimal(counted) / unit
        forecast, exhausted = None, None
        if start and end and used is not None:
            forecast, exhausted = _forecast(used, limit, start=start, now=moment_of(now), end=end)
        return LimitStanding(
            meter=meter,
            limit=limit,
            used=used,
            resets=end,
            forecast=forecast,
            exhausted=exhausted,
        )

    async def _recorded(
        self, tenant: str, meter: Meter, start: datetime | None, now: int
    ) -> int | None:
        """What the ledger knows, internal counts; ``None`` of what runs at once."""
        if start is None:
            return None
        totals = await self._reports.totals(
            tenant, start=start, end=moment_of(now + 1), only=filters_of(meter)
        )
        return _USED[meter.unit](totals)


def _window(meter: Meter, now: int) -> tuple[datetime | None, datetime | None]:
    """Start and end of the running window; ``None`` for what it has not."""
    if meter.window is Window.MINUTE:
        return moment_of(now) - WINDOW_LENGTH[Window.MINUTE], None
    if meter.window not in LEDGERED:
        return None, None
    if meter.window is Window.TOTAL:
        return EPOCH, None
    start, end = window_bounds(meter.window, now, meter.time_zone)
    return moment_of(start), moment_of(end)


def _forecast(
    used: Decimal, limit: Decimal, *, start: datetime, now: datetime, end: datetime
) -> tuple[Decimal, datetime | None]:
    """What will be used by `end`, and when `limit` is reached, at the rate since `start`."""
    forecast = scaled(used, start=start, now=now, end=end)
    if used >= limit:
        return forecast, now
    if forecast < limit:
        return forecast, None
    elapsed = Decimal(unix_ms(now) - unix_ms(start))
    return forecast, moment_of(unix_ms(start) + int(elapsed * limit / used))


def scaled(used: Decimal, *, start: datetime, now: datetime, end: datetime) -> Decimal:
    """What `used` since `start` grows to by `end`, steadily; itself before anything passed."""
    elapsed = unix_ms(now) - unix_ms(start)
    if elapsed <= 0 or now >= end:
        return used
    whole = used * (unix_ms(end) - unix_ms(start)) / elapsed
    return whole.quantize(Decimal("0.000001"))


def _ordered(meters: Iterable[Meter]) -> Sequence[Meter]:
    windows = list(Window)
    return sorted(meters, key=lambda meter: (meter.name, windows.index(meter.window), meter.key))
