"""What an operator decides about loading; `composition.py` reads it from the settings."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from atrium_common.catalogue import CatalogueError, ModelEntry

FOREVER = "forever"
"""As an entry's `keep_alive_seconds`: never unloaded for being idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecyclePolicy:
    """How long models stay, and how many fit.

    Attributes:
        keep_alive: Seconds that an idle model stays loaded after its last use; ``None`` for
            ever. An entry's own `keep_alive_seconds` comes first.
        memory_bytes: Most that loaded models may hold together; ``None`` is no limit.
        patience: Seconds that a load waits for busy models to make room.
    """

    keep_alive: float | None = None
    memory_bytes: int | None = None
    patience: float = 20.0

    def keep_alive_of(self, entry: ModelEntry) -> float | None:
        """Returns how long this model stays loaded when idle, in seconds; ``None`` for ever."""
        own = entry.keep_alive_seconds
        if own is None:
            return self.keep_alive
        return None if own == FOREVER else float(own)


def models_at_start(
    choice: str, entries: Sequence[ModelEntry], *, known: Collection[str]
) -> frozenset[str]:
    """Chooses which of a service's models are loaded before it is ready.

    Args:
        choice: ``"all"``, ``"default"`` (the first model of each capability), ``"none"``, or
            catalogue ids with commas between them.
        entries: The service's models, in catalogue order.
        known: Ids of the whole catalogue: services may share one list.

    Raises:
        CatalogueError: An id is not in the catalogue.
    """
    match choice.strip():
        case "all":
            return frozenset(entry.id for entry in entries)
        case "none" | "":
            return frozenset()
        case "default":
            first = {c: e.id for e in reversed(entries) for c in e.capabilities}
            return frozenset(first.values())
    names = {name.strip() for name in choice.split(",") if name.strip()}
    if missing := names - set(known):
        raise CatalogueError(f"load_at_start: there is no model {min(missing)!r}")
    return frozenset(entry.id for entry in entries if entry.id in names)
