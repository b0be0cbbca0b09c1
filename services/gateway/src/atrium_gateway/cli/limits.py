"""What `atrium tenant limit` and `atrium plan limit` have in common: options, words, checks."""

from typing import Annotated

import typer

from atrium_common.errors import InvalidArgument
from atrium_gateway.quota.amounts import amount_text, read_amount
from atrium_gateway.quota.checks import check_selector
from atrium_gateway.quota.limits import ANY_CAPABILITY, MODEL_PREFIX, Limit, Unit, Window

NO_LIMIT = "none"
"""Amount of a tenant's own limit that lifts the plan's or the default one."""
REMOVED = "default"
"""Amount of a limit that is removed."""

UnitOption = Annotated[Unit, typer.Option("--unit", help="What is counted.")]
WindowOption = Annotated[Window, typer.Option("--window", help="Over what time.")]
CapabilityOption = Annotated[
    str, typer.Option("--capability", help="Capability that it binds; '*' counts all together.")
]
ModelOption = Annotated[
    str, typer.Option("--model", help="Model that it binds, instead of a capability.")
]


def selector_of(capability: str, model: str) -> str:
    """What a limit binds.

    Raises:
        InvalidArgument: Both are given, or one that can't be.
    """
    if model and capability != ANY_CAPABILITY:
        raise InvalidArgument("Give --capability or --model.", field="model")
    selector = MODEL_PREFIX + model if model else capability
    check_selector(selector)
    return selector


def limit_of(selector: str, unit: Unit, window: Window, amount: str) -> Limit | None:
    """The limit that the options mean; ``None`` to remove the one of this kind.

    Raises:
        InvalidArgument: The amount is none.
    """
    if amount == REMOVED:
        return None
    return Limit(selector, unit, window, None if amount == NO_LIMIT else read_amount(unit, amount))


def words(limit: Limit, subject: str = "") -> str:
    """A limit for people, e.g. ``"chat: 100 requests/hour"``."""
    amount = "no limit of" if limit.amount is None else amount_text(limit.unit, limit.amount)
    text = f"{limit.selector}: {amount} {limit.unit}/{limit.window}"
    return f"{subject} {text}" if subject else text
