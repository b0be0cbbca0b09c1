"""Which models to evict so that another fits; a plan only, `Lifecycle` carries it out."""

from collections.abc import Collection

from atrium_common.lifecycle.record import ModelRecord


def held_bytes(records: Collection[ModelRecord]) -> int:
    """Returns what the models hold together."""
    return sum(record.held_bytes for record in records)


def evictions(records: Collection[ModelRecord], missing: int) -> list[ModelRecord] | None:
    """Chooses idle models that together hold `missing` bytes, the least recently used first.

    A busy model is never chosen, nor one that holds nothing.

    Returns:
        The models, or ``None`` if all idle ones together do not hold so much.
    """
    idle = [record for record in records if record.idle and record.held_bytes]
    chosen: list[ModelRecord] = []
    for record in sorted(idle, key=lambda record: record.last_used):
        if missing <= 0:
            break
        chosen.append(record)
        missing -= record.held_bytes
    return chosen if missing <= 0 else None
