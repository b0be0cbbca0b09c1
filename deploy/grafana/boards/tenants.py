"""What is used and refused, and whose budget ends."""

from .panels import Dashboard, Query, Row, panel
from .parts import LEDGER
from .queries import rate

MONEY = (
    "Money is in the ledger, exact to the event, and not in metrics:\n\n"
    "- `/api/usage?tenant=...`: by key, user, model, day (`group_by`); CSV too\n"
    "- `/api/usage/summary`: what is left of every limit, and where it is heading\n"
    "- `/api/usage/statement`: a month's bill\n"
    "- `atrium usage export`: every event\n"
)

TENANTS = Dashboard(
    uid="atrium-tenants",
    title="Atrium: tenants and cost",
    description="What is used, what is refused, whose budget ends. Metrics name no tenants.",
    rows=(
        Row(
            "Used",
            (
                panel(
                    "Units",
                    "What all tenants together used, a second.",
                    Query(rate("atrium_usage_units_total", "unit"), "{{unit}}"),
                    logarithmic=True,
                ),
                panel(
                    "Units by model",
                    "What was used in the chosen time; prices are by these units.",
                    Query("sum by (model, unit) (increase(atrium_usage_units_total[$__range]))"),
                    kind="table",
                ),
                panel(
                    "Time of the devices by model",
                    "Seconds of inference a second: what the cards worked for.",
                    Query(rate("atrium_inference_seconds_sum", "model"), "{{model}}"),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Limits",
            (
                panel(
                    "Decisions",
                    "Of admission, at both doors, a second.",
                    Query(rate("atrium_admissions_total", "decision"), "{{decision}}"),
                    unit="reqps",
                    stacked=True,
                ),
                panel(
                    "Refused by limit",
                    "Requests that a limit refused, by its unit and window, a second.",
                    Query(
                        rate(
                            "atrium_admissions_total",
                            "unit",
                            "window",
                            where='{decision="refused"}',
                        ),
                        "{{unit}} per {{window}}",
                    ),
                    unit="reqps",
                ),
                panel(
                    "Admission, p95",
                    "Time that deciding takes, over five minutes.",
                    Query("atrium:admission_seconds:p95_5m", "p95"),
                    unit="s",
                    limits=(0.05, 0.25),
                ),
                panel(
                    "Tenants near their limits",
                    "Tenants that have used at least this share of a limit.",
                    Query(
                        "max by (unit, window, used) (atrium_budget_tenants) > 0",
                        "{{used}} of {{unit}} per {{window}}",
                    ),
                    kind="bargauge",
                ),
                panel(
                    "Budgets crossed",
                    "Which tenant crossed 50, 80, 95 or 100% of which limit.",
                    Query('{service="gateway"} |= "budget_used"'),
                    kind="logs",
                    width=16,
                ),
            ),
        ),
        Row(
            "Ledger",
            (
                *LEDGER,
                panel(
                    "Repeated requests",
                    "Requests with an Idempotency-Key, by what became of them.",
                    Query(rate("atrium_idempotent_requests_total", "outcome"), "{{outcome}}"),
                    unit="reqps",
                ),
                panel(
                    "Money by tenant",
                    "Where what each tenant owes is to be found.",
                    kind="text",
                    width=8,
                    text=MONEY,
                ),
            ),
        ),
    ),
)
