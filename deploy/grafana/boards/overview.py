"""Whether the suite is well, on one page."""

from typing import Literal

from .panels import Dashboard, Panel, Query, Row, panel
from .parts import LEDGER
from .queries import quantile, rate


def number(
    title: str,
    description: str,
    expression: str,
    *,
    unit: str = "short",
    limits: tuple[float, float] | None = None,
    kind: Literal["stat", "bargauge"] = "stat",
    legend: str = "",
) -> Panel:
    """One number, or a few, large enough to be read from across the room."""
    return panel(
        title,
        description,
        Query(expression, legend),
        unit=unit,
        kind=kind,
        limits=limits,
        width=4,
        height=4,
    )


_SUCCESS = (
    rate("atrium_http_requests_total", where='{status!~"5.."}')
    + " / "
    + rate("atrium_http_requests_total")
)

OVERVIEW = Dashboard(
    uid="atrium-overview",
    title="Atrium: overview",
    description="Whether the suite is well, on one page.",
    rows=(
        Row(
            "Now",
            (
                number(
                    "Processes up",
                    "Processes that answer Prometheus; all that were started should.",
                    'sum(up{job="atrium"})',
                ),
                number(
                    "Alerts",
                    "Alerts that fire; the table below names them.",
                    'count(ALERTS{alertstate="firing"}) or vector(0)',
                    limits=(1, 5),
                ),
                number(
                    "Requests",
                    "HTTP requests that ended, a second.",
                    rate("atrium_http_requests_total"),
                    unit="reqps",
                ),
                number(
                    "Without server errors",
                    "Share of HTTP requests that did not end with a status of 500 or more.",
                    _SUCCESS,
                    unit="percentunit",
                    limits=(0.99, 0.95),
                ),
                number(
                    "Begins within",
                    "19 of 20 streams begin sooner: for chats, the time to the first token.",
                    quantile(0.95, "atrium_http_first_byte_seconds"),
                    unit="s",
                    limits=(2, 5),
                ),
                number(
                    "In flight",
                    "HTTP requests being served now; a WebSocket counts while it is open.",
                    "sum(atrium_http_requests_in_flight)",
                ),
            ),
        ),
        Row(
            "Requests",
            (
                panel(
                    "Requests by route",
                    "HTTP requests that ended, a second.",
                    Query(rate("atrium_http_requests_total", "route"), "{{route}}"),
                    unit="reqps",
                    stacked=True,
                ),
                panel(
                    "Requests by status",
                    "499: the caller left. 0: nothing was sent.",
                    Query(rate("atrium_http_requests_total", "status"), "{{status}}"),
                    unit="reqps",
                    stacked=True,
                ),
                panel(
                    "Errors by reason",
                    "Requests that ended with an error, broken streams included.",
                    Query(rate("atrium_http_errors_total", "reason"), "{{reason}}"),
                    unit="reqps",
                ),
                panel(
                    "Duration, p95",
                    "From arrival to the last byte, over five minutes.",
                    Query("atrium:http_request_seconds:p95_5m", "{{route}}"),
                    unit="s",
                ),
                panel(
                    "First byte, p95",
                    "From arrival to a stream's first byte, over five minutes.",
                    Query("atrium:http_first_byte_seconds:p95_5m", "{{route}}"),
                    unit="s",
                ),
                panel(
                    "Server errors by route",
                    "Share of requests with a status from 500 on, over five minutes.",
                    Query("atrium:http_server_errors:ratio_rate5m", "{{route}}"),
                    unit="percentunit",
                    limits=(0.01, 0.05),
                ),
            ),
        ),
        Row(
            "Services",
            (
                panel(
                    "Ready",
                    "Whether the gateway's calls get through to a replica that serves.",
                    Query("max by (service) (atrium_upstream_ready)", "{{service}}"),
                    unit="bool_yes_no",
                    kind="state-timeline",
                    limits=(1, 0.5),
                ),
                panel(
                    "Waiting",
                    "Requests that wait for an engine, by service.",
                    Query("sum by (service) (atrium_queue_depth)", "{{service}}"),
                ),
                panel(
                    "Produced and consumed",
                    "Tokens, characters, pictures and milliseconds of audio, a second.",
                    Query(rate("atrium_usage_units_total", "unit"), "{{unit}}"),
                    logarithmic=True,
                ),
            ),
        ),
        Row(
            "Ledger and alerts",
            (
                *LEDGER[:2],
                panel(
                    "Firing alerts",
                    "Each has its page in docs/runbook.md, under its name.",
                    Query('sum by (alertname, severity, service) (ALERTS{alertstate="firing"})'),
                    kind="table",
                    links=(("service", "/d/atrium-service?var-service=${__value.raw}"),),
                ),
            ),
        ),
    ),
)
