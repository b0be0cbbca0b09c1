"""The paths of usage reports; `routes.py` adds them to its own."""

from atrium_gateway.api.openapi import operation
from atrium_gateway.api.path import Path
from atrium_gateway.api.usage import show_usage
from atrium_gateway.api.usage_events import list_usage_events
from atrium_gateway.api.usage_schema import (
    EventsAnswer,
    EventsQuery,
    StatementAnswer,
    StatementQuery,
    SummaryAnswer,
    SummaryQuery,
    UsageAnswer,
    UsageQuery,
)
from atrium_gateway.api.usage_statement import show_usage_statement
from atrium_gateway.api.usage_summary import show_usage_summary

_CSV = ("text/csv",)

USAGE_PATHS = (
    Path(
        "GET",
        "/api/usage",
        show_usage,
        "suite",
        operation(query=UsageQuery, answer=UsageAnswer, media=_CSV),
    ),
    Path(
        "GET",
        "/api/usage/events",
        list_usage_events,
        "suite",
        operation(query=EventsQuery, answer=EventsAnswer, media=_CSV),
    ),
    Path(
        "GET",
        "/api/usage/summary",
        show_usage_summary,
        "suite",
        operation(query=SummaryQuery, answer=SummaryAnswer),
    ),
    Path(
        "GET",
        "/api/usage/statement",
        show_usage_statement,
        "suite",
        operation(query=StatementQuery, answer=StatementAnswer, media=_CSV),
    ),
)
"""Where usage is read."""
