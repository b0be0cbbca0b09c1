"""Says in a sentence how an event ended and why that is charged; for the bill's readers."""

from collections.abc import Mapping
from typing import Final

from atrium_gateway.usage.records import EXPIRED, ORPHANED, REFUNDED, Outcome
from atrium_gateway.usage.reports_views import EventView

_ESTIMATE: Final = "what was reserved is charged, as an upper estimate."
_STORIES: Final[Mapping[str, str]] = {
    Outcome.COMPLETED: "The work was completed: what it consumed is charged.",
    Outcome.CANCELLED: "The caller left before the end: what was produced until then is charged.",
    Outcome.FAILED: "The work failed on its way: what was produced until then is charged.",
    REFUNDED: "The work ended before any output: the reservation was given back, "
    "nothing is charged.",
    EXPIRED: f"Nobody told in time what was consumed: {_ESTIMATE}",
    ORPHANED: f"The gateway stopped while the work ran: {_ESTIMATE}",
}


def explanation(event: EventView) -> str:
    """Why `event` is charged as it is."""
    parts = [_STORIES.get(event.outcome, f"It ended as {event.outcome}.")]
    if event.reason:
        parts.append(f"Reason: {event.reason}.")
    if event.estimated and event.outcome not in (EXPIRED, ORPHANED):
        parts.append("The exact amount is not known: an upper estimate is charged.")
    if not event.totals.requests and event.outcome != REFUNDED:
        parts.append("Several models worked for it: another event counts the request itself.")
    if not event.price_version and event.outcome != REFUNDED:
        parts.append("The model had no price.")
    return " ".join(parts)
