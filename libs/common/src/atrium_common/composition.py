"""What every service's `__main__` puts together alike, out of its settings."""

from collections.abc import Sequence

from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.lifecycle import Lifecycle, LifecyclePolicy, limit_arenas, models_at_start
from atrium_common.settings import ServiceSettings


def open_lifecycle(
    settings: ServiceSettings, catalogue: Catalogue, entries: Sequence[ModelEntry]
) -> Lifecycle:
    """Makes the lifecycle that all engines of the process share.

    Bounds the heaps of the process as well: else unloaded models leave pieces in each.

    Args:
        settings: The service's.
        catalogue: The whole of it.
        entries: The service's models, in catalogue order.

    Raises:
        CatalogueError: `load_at_start` names a model that the catalogue lacks.
    """
    limit_arenas()
    return Lifecycle(
        LifecyclePolicy(
            keep_alive=settings.keep_alive_seconds,
            memory_bytes=settings.memory_budget_mib << 20 or None,
        ),
        at_start=models_at_start(
            settings.load_at_start, entries, known=[entry.id for entry in catalogue]
        ),
    )
