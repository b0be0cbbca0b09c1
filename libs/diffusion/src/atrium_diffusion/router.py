"""The picture engines of a service as one; its servicer and its studio see only this.

Each picture service has a table ``name -> "module:Class"`` of its own and calls
`open_engines` with it, so that an engine's libraries are imported only when it is used.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.lifecycle import Lifecycle
from atrium_common.registry import by_engine, make_engine
from atrium_common.routing import ModelRouter
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import ModelLimits, PictureEvent, PictureJob, RequestPlan
from atrium_diffusion.engines.base import PictureEngine


class PictureRouter(ModelRouter[PictureEngine]):
    """Dispatches by model id; every method means what `PictureEngine` says."""

    name = "pictures"

    def limits(self, model: str) -> ModelLimits:
        """Tells what its engine takes."""
        return self.engine_of(model).limits(model)

    def check_ready(self, model: str) -> None:
        """Asks its engine."""
        self.engine_of(model).check_ready(model)

    def plan(self, job: PictureJob) -> RequestPlan:
        """Lets its engine decide."""
        return self.engine_of(job.model).plan(job)

    def draw(self, plan: RequestPlan) -> AsyncIterator[PictureEvent]:
        """Draws with its engine."""
        return self.engine_of(plan.job.model).draw(plan)


def open_engines(
    table: Mapping[str, str],
    service: str,
    entries: Sequence[ModelEntry],
    *,
    store: WeightStore,
    adapters: Sequence[AdapterEntry] = (),
    lifecycle: Lifecycle | None = None,
) -> PictureRouter:
    """Makes one engine for each engine name of the entries, behind one router.

    Args:
        table: Registry name -> ``"module:Class"``; the class takes
            `(entries, *, store, adapters, lifecycle)`.
        service: Name of the service, e.g. ``"text2image"``.
        entries: Its models.
        store: The weights.
        adapters: The catalogue's adapters; each engine takes those of its models.
        lifecycle: Shared by the engines; see `ModelHost`.

    Raises:
        CatalogueError: There are no entries, or an engine can't be made.
    """
    engines = {
        name: cast(
            "PictureEngine",
            make_engine(
                *(table, service, name, served),
                store=store,
                adapters=adapters,
                lifecycle=lifecycle,
            ),
        )
        for name, served in by_engine(entries, service).items()
    }
    return PictureRouter(engines, {entry.id: entry.engine for entry in entries})
