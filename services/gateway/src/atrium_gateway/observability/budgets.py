"""How many tenants have used how much of their limits, from what admission is told anyway.

A gauge per tenant would be without bound, so this counts tenants by unit, window and share;
which tenant it is stands in the log. `WatchedAdmission` notes, /metrics reads.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from atrium_common.telemetry.families import gauge
from atrium_gateway.quota.limits import LEDGERED, LimitView

_log = structlog.get_logger("atrium.budgets")

SHARES: Final = (0.5, 0.8, 0.95, 1.0)
_MOST: Final = 10_000
"""Tenants, by capability and model, that are remembered: those that asked last."""
_WINDOWS: Final = frozenset(str(window) for window in LEDGERED)


class Budgets(Collector):
    """Remembers the limits' last states; looks at them at the scrape alone."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Args: now: Aware UTC, to forget windows that have ended."""
        self._now = now
        self._latest: dict[tuple[str, str, str], Sequence[LimitView]] = {}
        self._told: dict[tuple[str, str, datetime], float] = {}

    def note(self, tenant: str, capability: str, model: str, limits: Sequence[LimitView]) -> None:
        """Takes the state of the limits that a request met; called on the event loop."""
        if not limits:
            return
        key = (tenant, capability, model)
        self._latest.pop(key, None)
        self._latest[key] = limits
        if len(self._latest) > _MOST:
            del self._latest[next(iter(self._latest))]

    def describe(self) -> Iterable[Metric]:
        """Names nothing ahead."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Counts tenants, in the scrape's thread, and logs the shares that were crossed."""
        largest: dict[tuple[str, str, str], float] = {}
        told: dict[tuple[str, str, datetime], float] = {}
        for tenant, limit, used in self._used():
            key = (limit.unit, _window(limit), tenant)
            largest[key] = max(used, largest.get(key, 0.0))
            named = (tenant, limit.name, limit.reset_time)
            told[named] = max(used, told.get(named, 0.0))
        self._tell(told)
        tenants: Counter[tuple[str, str, str]] = Counter()
        for (unit, window, _), used in largest.items():
            for share in SHARES:
                tenants[unit, window, f"{share:g}"] += used >= share
        yield gauge(
            "atrium_budget_tenants",
            "Tenants that have used at least this share of a limit.",
            ("unit", "window", "used"),
            tenants.items(),
        )

    def _used(self) -> Iterator[tuple[str, LimitView, float]]:
        now = self._now()
        for (tenant, _, _), limits in tuple(self._latest.items()):
            for limit in limits:
                if limit.limit > 0 and limit.reset_time > now and _window(limit) in _WINDOWS:
                    yield tenant, limit, 1 - limit.remaining / limit.limit

    def _tell(self, told: dict[tuple[str, str, datetime], float]) -> None:
        for (tenant, name, reset), used in told.items():
            before = self._told.get((tenant, name, reset), 0.0)
            crossed = [share for share in SHARES if before < share <= used]
            if crossed:
                _log.info("budget_used", tenant=tenant, limit=name, share=max(crossed))
        # What ended is forgotten; what was once used stays told, if a refund freed it.
        self._told = {key: max(used, self._told.get(key, 0.0)) for key, used in told.items()}


def _window(limit: LimitView) -> str:
    return limit.name.rpartition(":")[2]
