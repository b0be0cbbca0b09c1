"""A host for models that have no weights: the fakes', in tests, benchmarks and demonstrations.

Their states, idle unloading and the budget (by `memory_mib`) are as any model's.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from atrium_common.catalogue import ModelEntry
from atrium_common.lifecycle.handling import ModelHandling
from atrium_common.lifecycle.host import ModelHost
from atrium_common.lifecycle.lifecycle import Lifecycle


async def _open(entry: ModelEntry) -> ModelEntry:
    return entry


async def _warm_up(entry: ModelEntry, loaded: ModelEntry) -> None:
    """There is nothing that could fail."""


def weightless_host(
    engine: str,
    entries: Sequence[ModelEntry],
    *,
    lifecycle: Lifecycle | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ModelHost[ModelEntry]:
    """Makes a host whose loaded models are their entries; see `ModelHost`."""
    handling = ModelHandling(
        open_model=_open, warm_up=_warm_up, measure=lambda _: None, expect=lambda _: 0
    )
    return ModelHost(engine, entries, handling, lifecycle=lifecycle, now=now)
