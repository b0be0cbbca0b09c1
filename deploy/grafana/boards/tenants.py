"""What is used and refused, and whose budget ends."""

from .panels import Dashboard, Panel, Query, Row
from .parts import LEDGER
from .queries import rate

TENANTS = Dashboard(
    uid="atrium-tenants",
    title="Atrium: tenants and cost",
    description="What is used, what is refused, whose budget ends. Metrics name no tenants.",
    rows=(
        Row(
            "Used",
            (
                Panel(
                    title="Units",
                    description="What all tenants together used, a second.",
                    queries=(Query(rate("atrium_usage_units_total", "unit"), "{{unit}}"),),
                ),
                Panel(
                    title="Units by model",
                    description="What was used in the chosen time; prices are by these units.",
                    kind="table",
                    queries=(
                        Query(
                            "sum by (model, unit) (increase(atrium_usage_units_total[$__range]))"
                        ),
                    ),
                ),
                Panel(
                    title="Time of the devices by model",
                    description="Seconds of inference a second: what the cards worked for.",
                    queries=(Query(rate("atrium_inference_seconds_sum", "model"), "{{model}}"),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Limits",
            (
                Panel(
                    title="Decisions",
                    description="Of admission, at both doors, a second.",
                    unit="reqps",
                    queries=(Query(rate("atrium_admissions_total", "decision"), "{{decision}}"),),
                    stacked=True,
                ),
                Panel(
                    title="Refused by limit",
                    description="Requests that a limit refused, by its unit and window, a second.",
                    unit="reqps",
                    queries=(
                        Query(
                            rate(
                                "atrium_admissions_total",
                                "unit",
                                "window",
                                where='{decision="refused"}',
                            ),
                            "{{unit}} per {{window}}",
                        ),
                    ),
                ),
                Panel(
                    title="Admission, p95",
                    description="Time that deciding takes, over five minutes.",
                    unit="s",
                    queries=(Query("atrium:admission_seconds:p95_5m", "p95"),),
                    limits=(0.05, 0.25),
                ),
                Panel(
                    title="Tenants near their limits",
                    description="Tenants that have used at least this share of a limit.",
                    kind="bargauge",
                    queries=(
                        Query(
                            "max by (unit, window, used) (atrium_budget_tenants) > 0",
                            "{{used}} of {{unit}} per {{window}}",
                        ),
                    ),
                ),
                Panel(
                    title="Budgets crossed",
                    description="Which tenant crossed 50, 80, 95 or 100% of which limit.",
                    kind="logs",
                    queries=(Query('{service="gateway"} |= "budget_used"'),),
                    width=16,
                ),
            ),
        ),
        Row(
            "Ledger",
            (
                *LEDGER,
                Panel(
                    title="Repeated requests",
                    description="Requests with an Idempotency-Key, by what became of them.",
                    unit="reqps",
                    queries=(
                        Query(rate("atrium_idempotent_requests_total", "outcome"), "{{outcome}}"),
                    ),
                ),
                Panel(
                    title="Money by tenant",
                    description="Where what each tenant owes is to be found.",
                    kind="text",
                    width=16,
                    text="Money is in the ledger, exact to the event, and not in metrics:\n\n"
                    "- `/api/usage?tenant=...`: by key, user, model, day (`group_by`); CSV too\n"
                    "- `/api/usage/summary`: what is left of every limit, and where it is heading\n"
                    "- `/api/usage/statement`: a month's bill\n"
                    "- `atrium usage export`: every event\n",
                ),
            ),
        ),
    ),
)
