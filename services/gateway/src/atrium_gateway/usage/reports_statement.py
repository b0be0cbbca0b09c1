"""The bill of a period: what each model did while its prices stayed the same, and what it cost.

For `/api/usage/statement` and `atrium usage statement`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from atrium_gateway.usage.price import ModelPrices
from atrium_gateway.usage.reports import Filters, Group, Totals, UsageReports
from atrium_gateway.usage.reports_calendar import moment_of, unix_ms
from atrium_gateway.usage.reports_prices import ChargeLine, charge_lines, event_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """One model while its prices stayed the same.

    Attributes:
        model: Catalogue id.
        start: Aware UTC.
        end: Aware UTC, not included.
        prices: What a unit cost; empty for a free model.
        totals: What it did; their cost is the sum over single requests, each rounded.
    """

    model: str
    start: datetime
    end: datetime
    prices: ModelPrices
    totals: Totals

    @property
    def charges(self) -> Sequence[ChargeLine]:
        """What each unit adds, computed over all requests."""
        return charge_lines(self.prices, event_counts(self.totals))

    @property
    def rounding(self) -> Decimal:
        """What the cost differs from the sum of the charges."""
        return self.totals.cost - sum((line.amount for line in self.charges), Decimal())


async def spells(
    reports: UsageReports, tenant: str, *, start: datetime, end: datetime
) -> Sequence[Spell]:
    """What each model did between two changes of its prices, where it did anything.

    Raises:
        InvalidArgument: `end` is not after `start`.
        Unavailable: Disk or database refuse.
    """
    prices = await reports.prices()
    found = []
    for group in await reports.groups(tenant, start=start, end=end, by=[Group.MODEL]):
        model = group.model or ""
        parts = prices.spells(model, unix_ms(start), unix_ms(end))
        for begins, ends, applied in parts:
            first, last = moment_of(begins), moment_of(ends)
            totals = group.totals
            if len(parts) > 1:
                only = Filters(model=(model,))
                totals = await reports.totals(tenant, start=first, end=last, only=only)
            if totals != Totals():
                found.append(
                    Spell(model=model, start=first, end=last, prices=applied, totals=totals)
                )
    return found
