"""Reads a spool that an earlier process left; the ledger does it once, when it starts."""

from dataclasses import dataclass
from pathlib import Path

from atrium_gateway.usage.framing import records
from atrium_gateway.usage.records import ClosedElsewhere, OpenRecord, events_of
from atrium_gateway.usage.spool import segment_path, segments


@dataclass(frozen=True)
class Recovered:
    """What the spool tells.

    Attributes:
        open: Reservations without a closing event, as they were last granted.
        spoilt: Lines that are not whole, a torn tail not counted.
    """

    open: tuple[OpenRecord, ...]
    spoilt: int


def scan(folder: Path) -> Recovered:
    """Walks over all segments, oldest first."""
    opened: dict[str, OpenRecord] = {}
    spoilt = 0
    for number in segments(folder):
        for record, _ in records(segment_path(folder, number).read_bytes()):
            if record is None:
                spoilt += 1
            elif isinstance(record, OpenRecord):
                opened[record.id] = record
            elif isinstance(record, ClosedElsewhere):
                opened.pop(record.id, None)
            else:
                for event in events_of(record):
                    opened.pop(event.id, None)
    return Recovered(tuple(opened.values()), spoilt)
