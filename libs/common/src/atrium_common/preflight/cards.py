"""The cards of this machine, as NVIDIA's driver tells them; `__main__` asks once."""

import csv
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_QUERY = "--query-gpu=index,uuid,name,memory.total"
_SECONDS = 30
"""A driver that no process holds open takes seconds to answer."""


@dataclass(frozen=True, slots=True)
class Card:
    """One card.

    Attributes:
        index: Number that the driver gives it, from 0.
        uuid: Its lasting name, ``"GPU-..."``; ``""`` where it is only declared.
        name: Product.
        memory_mib: All of its memory, in MiB.
    """

    index: int
    uuid: str
    name: str
    memory_mib: int

    def is_called(self, name: str) -> bool:
        """Whether `name` is its index or its UUID."""
        return name in (str(self.index), self.uuid)


def declared(sizes: Sequence[int]) -> list[Card]:
    """Returns cards of these sizes in MiB, that nobody has looked at."""
    return [Card(index, "", "declared", size) for index, size in enumerate(sizes)]


def installed(program: str = "nvidia-smi") -> list[Card] | None:
    """Asks the driver.

    Args:
        program: What is run; the container runtime brings it along with the cards.

    Returns:
        The cards, by index; ``None`` where there is no driver or it does not answer.
    """
    command = [program, _QUERY, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(  # noqa: S603 (a fixed command line)
            command, capture_output=True, text=True, check=True, timeout=_SECONDS
        )
        return read(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def read(table: str) -> list[Card]:
    """Reads the driver's table of index, UUID, name and memory in MiB.

    Raises:
        ValueError: A row is none of that.
    """
    rows = [row for row in csv.reader(table.splitlines(), skipinitialspace=True) if row]
    cards = [
        Card(int(index), uuid.strip(), name.strip(), int(memory))
        for index, uuid, name, memory in rows
    ]
    return sorted(cards, key=lambda card: card.index)
