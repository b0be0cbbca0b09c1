"""Who asks, under which id and until when: set once per RPC at the edge.

`interceptors/context.py` fills it in; servicers, engines' queues and logs read it.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from atrium_common.domain import Usage


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request as the code behind the edge sees it.

    Attributes:
        request_id: The caller's id of the request or one made for it, 1 to 128
            visible characters.
        tenant: Tenant that pays; ``""`` only for unmetered calls of the suite.
        subject: User or key of the tenant, ``""`` where it is not known.
        weight: Share of the tenant in fair scheduling, above 0.
        deadline: When the caller stops waiting, in seconds of `time.monotonic`;
            ``None`` if it never does.
        reservation_id: Reservation that the work is charged to, if any.
    """

    request_id: str
    tenant: str
    subject: str = ""
    weight: float = 1.0
    deadline: float | None = None
    reservation_id: str | None = None


UsageReport = Callable[[Usage, Sequence[Usage]], None]
"""Hears of what was consumed so far, and of the same by model where several work."""

_CONTEXT: ContextVar[RequestContext] = ContextVar("atrium_request_context")
_USAGE_REPORT: ContextVar[UsageReport] = ContextVar("atrium_usage_report")
_COVER: ContextVar[Callable[[Usage], Awaitable[None]]] = ContextVar("atrium_cover")


def current_context() -> RequestContext:
    """Returns the context of the RPC that runs now.

    Raises:
        LookupError: Outside of an RPC.
    """
    return _CONTEXT.get()


def find_context() -> RequestContext | None:
    """Returns the context of the RPC that runs now, or ``None`` outside of one."""
    return _CONTEXT.get(None)


def bind_context(context: RequestContext) -> None:
    """Sets the context of the task that runs now and of the tasks it starts."""
    _CONTEXT.set(context)


def report_usage(usage: Usage, by_model: Sequence[Usage] = ()) -> None:
    """Tells the edge what an RPC has consumed so far.

    A streaming RPC says so in every message. A unary one that is cancelled never
    sends its message, so a servicer that drains an engine calls this with each
    event's cumulative usage; a streaming one does where it works ahead of its
    messages. The last one is what a caller who left is charged. Does nothing where
    nobody meters.

    Args:
        usage: The total since the request began.
        by_model: The same by model, where several do the work; adds up to `usage`.
    """
    report = _USAGE_REPORT.get(None)
    if report is not None:
        report(usage, by_model)


def bind_usage_report(report: UsageReport) -> None:
    """Sets who hears `report_usage` in the task that runs now."""
    _USAGE_REPORT.set(report)


async def cover_work(work: Usage) -> None:
    """Makes sure that the reservation covers all of `work`, before it begins.

    For servicers whose estimate was a first share, because the first request did not
    tell how much there is to do. Does nothing where nobody meters: the gateway's
    reservation covers the whole request.

    Raises:
        QuotaExceeded: It does not fit into the tenant's limits.
        Unavailable: The reservation is gone, or admission can't be reached.
    """
    cover = _COVER.get(None)
    if cover is not None:
        await cover(work)


def bind_cover(cover: Callable[[Usage], Awaitable[None]]) -> None:
    """Sets who grows the reservation for `cover_work` in the task that runs now."""
    _COVER.set(cover)
