"""What the limits say in headers, under OpenAI's names and the IETF's; for answers and refusals."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from atrium_gateway.quota.amounts import amount_text
from atrium_gateway.quota.limits import LimitView

_NEVER = 9999
"""Year of the reset time of a limit that never resets; no header is shown for it."""
_SECOND = timedelta(seconds=1)


def limit_headers(limits: Iterable[LimitView], *, now: datetime | None = None) -> dict[str, str]:
    """Gives `x-ratelimit-{limit,remaining,reset}-<unit>` of the tightest limit per unit.

    All limits are in `ratelimit-policy` and `ratelimit`, as the IETF's draft has them
    (draft-ietf-httpapi-ratelimit-headers-10): what is allowed in which time, what is left
    and until when.

    Args:
        limits: Tightest first.
        now: The time that resets are counted from; the wall clock if not given.
    """
    limits = tuple(limits)
    if not limits:
        return {}
    now = now or datetime.now(UTC)
    headers = _all_of(limits, now)
    for limit in limits:
        unit = limit.unit.replace("_", "-")
        if f"x-ratelimit-limit-{unit}" in headers:
            continue
        headers[f"x-ratelimit-limit-{unit}"] = amount_text(limit.unit, limit.limit)
        headers[f"x-ratelimit-remaining-{unit}"] = amount_text(limit.unit, limit.remaining)
        if limit.reset_time.year < _NEVER:
            headers[f"x-ratelimit-reset-{unit}"] = span(limit.reset_time - now)
    return headers


def _all_of(limits: Iterable[LimitView], now: datetime) -> dict[str, str]:
    policies, states = [], []
    for limit in limits:
        if not limit.name:
            continue
        policy, state = f'"{limit.name}";q={limit.limit}', f'"{limit.name}";r={limit.remaining}'
        if limit.window:
            policy += f";w={limit.window // _SECOND}"
        if limit.reset_time.year < _NEVER:
            state += f";t={max(0, math.ceil((limit.reset_time - now).total_seconds()))}"
        policies.append(policy)
        states.append(state)
    if not policies:
        return {}
    return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(states)}


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
