"""What the limits say in headers, under OpenAI's names; for answers and refusals."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

_NEVER = 9999
"""Year of the reset time of a limit that never resets; no header is shown for it."""


class LimitView(Protocol):
    """What a header tells of a limit; a reservation's state and a violation have it."""

    @property
    def unit(self) -> str:
        """What is counted."""
        ...

    @property
    def limit(self) -> int:
        """Amount allowed in a window."""
        ...

    @property
    def remaining(self) -> int:
        """Amount still free."""
        ...

    @property
    def reset_time(self) -> datetime:
        """When the window begins anew, aware UTC."""
        ...


def limit_headers(limits: Iterable[LimitView], *, now: datetime | None = None) -> dict[str, str]:
    """Gives `x-ratelimit-{limit,remaining,reset}-<unit>` of the tightest limit per unit.

    Args:
        limits: Tightest first; later ones of the same unit are left out.
        now: The time that resets are counted from; the wall clock if not given.
    """
    headers: dict[str, str] = {}
    for limit in limits:
        unit = limit.unit.replace("_", "-")
        if f"x-ratelimit-limit-{unit}" in headers:
            continue
        headers[f"x-ratelimit-limit-{unit}"] = str(limit.limit)
        headers[f"x-ratelimit-remaining-{unit}"] = str(limit.remaining)
        if limit.reset_time.year < _NEVER:
            wait = limit.reset_time - (now or datetime.now(UTC))
            headers[f"x-ratelimit-reset-{unit}"] = span(wait)
    return headers


def seconds_header(wait: timedelta) -> str:
    """Gives a `Retry-After`: whole seconds, rounded up, at least 1."""
    return str(max(1, math.ceil(wait.total_seconds())))


def span(wait: timedelta) -> str:
    """Writes a duration as OpenAI does: ``"1h2m3s"``, ``"6m0s"``, ``"20ms"``.

    >>> span(timedelta(minutes=6))
    '6m0s'
    """
    milliseconds = max(0, round(wait.total_seconds() * 1000))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = math.ceil(milliseconds / 1000)
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{hours}h" if hours else ""
    if hours or minutes:
        text += f"{minutes}m"
    return f"{text}{seconds}s"
