"""One piece of work that several models did: who consumed what, checked; admission uses it.

What a service reports by model decides prices alone. How much was consumed is what it
reports in total: limits count that, and the events of a settlement add up to it.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from uuid import UUID, uuid5

from atrium_common.domain import Usage

_COUNTED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "characters",
    "input_audio",
    "output_audio",
    "images",
    "millimegapixel_steps",
    "pages",
)
_TIMES = ("queue_time", "inference_time")
_LOW = (1 << 64) - 1


def shares(usage: Usage, by_model: Sequence[Usage], *, model: str) -> Sequence[Usage] | None:
    """Gives what is booked for each model, the first of `by_model` first.

    Args:
        usage: What was consumed in total.
        by_model: The same by model, or nothing; a model may stand there twice.
        model: Who did the work where the service does not say.

    Returns:
        One usage per model; or ``None`` if `by_model` does not add up
        to `usage`.
    """
    if not by_model:
        return [usage]
    if _counts(reduce(_joined, by_model)) != _counts(usage):
        return None
    found: dict[str, Usage] = {}
    for part in by_model:
        name = part.model or model
        found[name] = _joined(found[name], part) if name in found else replace(part, model=name)
    return list(found.values())


def share_id(reservation_id: str, model: str) -> str:
    """Makes the id of an event beside the one that has the reservation's own.

    The same reservation and model give the same id, so that a replay adds nothing. It
    keeps the first half of the reservation's UUIDv7, so that both are sorted together.
    """
    own = UUID(reservation_id)
    return str(UUID(int=(own.int & ~_LOW) | (uuid5(own, model).int & _LOW)))


def _counts(usage: Usage) -> Sequence[object]:
    return operator.attrgetter(*_COUNTED)(usage)


def _joined(first: Usage, second: Usage) -> Usage:
    sums = {name: getattr(first, name) + getattr(second, name) for name in (*_COUNTED, *_TIMES)}
    return replace(first, **sums, estimated=first.estimated or second.estimated)
