"""Which limits and time zones may be stored; the repository asks before it writes."""

import re
from collections.abc import Collection
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_gateway.quota.limits import (
    ANY_CAPABILITY,
    MODEL_PREFIX,
    UTC_ZONE,
    Limit,
    Unit,
    Window,
)

_CAPABILITIES: Final = [*(str(each) for each in Capability), ANY_CAPABILITY]
_MOST_OF_A_MINUTE: Final = 7 * 10**10
"""A bucket counts 60,000 drops a unit, in numbers that stay whole under 2^53."""
_MOST: Final = 2**50
_MODEL: Final = re.compile(r"[!#-\[\]-~]{1,200}")
"""What the name of a limit may hold in a header: no spaces, quotes or backslashes."""
MOST_LIMITS: Final = 200
"""Limits of one plan, tenant, key or user: so many models may have some of their own."""
MOST_ALIKE: Final = 24
"""Limits of one of these with the same selector. Those of its model, its capability and of all
together are counted for each request, and named in its answer's headers."""
MOST_OF_TENANT: Final = 5_000
"""Limits of a tenant with all of its keys and users: they are read together at each change."""
_PRIVATE_ZONES: Final = ("right/", "posix/", "localtime", "posixrules", "Factory")
"""Files among the zones that are none: this machine's own, or with leap seconds."""


def check_limit(limit: Limit, *, may_lift: bool) -> None:
    """Makes sure that every store can count a limit.

    Args:
        limit: The limit.
        may_lift: Whether it may be without an amount.

    Raises:
        InvalidArgument: It can't be counted, or binds nothing; `field` says which part.
    """
    check_selector(limit.selector)
    if limit.window is Window.CONCURRENT and limit.unit is not Unit.REQUESTS:
        raise InvalidArgument("concurrent counts requests only.", field="unit")
    if limit.amount is None:
        if not may_lift:
            raise InvalidArgument(
                "Only a tenant's own limit can lift another; state an amount.", field="amount"
            )
        return
    most = _MOST_OF_A_MINUTE if limit.window is Window.MINUTE else _MOST
    if not 0 <= limit.amount <= most // limit.unit.scale:
        raise InvalidArgument(
            f"{limit.amount} is no amount: {limit.unit} in a {limit.window} limit may be 0 to "
            f"{most // limit.unit.scale}.",
            field="amount",
        )


def check_room(whose: str, alike: Collection[int]) -> None:
    """Makes sure that a plan, a tenant, a key or a user has not too many limits.

    Args:
        whose: Names it to people.
        alike: How many it has of each selector.

    Raises:
        InvalidArgument: They are too many.
    """
    if max(alike, default=0) > MOST_ALIKE:
        raise InvalidArgument(
            f"{whose} may have {MOST_ALIKE} limits of one capability, of one model and of all "
            "together.",
            field="limits",
        )
    if sum(alike) > MOST_LIMITS:
        raise InvalidArgument(f"{whose} may have {MOST_LIMITS} limits.", field="limits")


def check_selector(selector: str) -> None:
    """Makes sure that a selector is a capability, ``"model:<id>"`` or ``"*"``.

    Raises:
        InvalidArgument: It is none of these.
    """
    if selector in _CAPABILITIES:
        return
    model = selector.removeprefix(MODEL_PREFIX)
    if model == selector:
        raise InvalidArgument(
            f"{selector!r} is no capability ({', '.join(_CAPABILITIES)}) and no model:<id>.",
            field="capability",
        )
    if not _MODEL.fullmatch(model):
        raise InvalidArgument(
            "A model's id has 1 to 200 characters of ASCII without spaces and quotes.",
            field="model",
        )


def check_time_zone(name: str) -> None:
    """Makes sure that a time zone is known.

    Raises:
        InvalidArgument: It is not.
    """
    if name == UTC_ZONE:
        return
    try:
        if name.startswith(_PRIVATE_ZONES):
            raise ValueError("a zone of this machine")
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise InvalidArgument(
            f"{name!r} is no time zone; they are named as in Europe/Berlin.", field="time_zone"
        ) from err
