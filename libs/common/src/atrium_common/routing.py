"""Several engines of a service as one: each model goes to the engine of its entry.

One process may run one model itself and hand another to an outside provider. A service's
`engines/router.py` adds its capability's methods; its servicer sees the router alone.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from atrium_common.domain import ModelInfo
from atrium_common.engine import Engine, HasBatches, LoadsModels, UnloadsModels
from atrium_common.engine_models import find_model, load_each
from atrium_common.errors import Unimplemented
from atrium_common.telemetry.tally import Tally

E = TypeVar("E", bound=Engine)


class ModelRouter(Generic[E]):
    """Dispatches by model id; is itself an `Engine`."""

    name = "router"

    def __init__(self, engines: Mapping[str, E], engine_of_model: Mapping[str, str]) -> None:
        """Takes the engines.

        Args:
            engines: By name.
            engine_of_model: Catalogue id -> name of its engine, in catalogue order.
        """
        self._engines = dict(engines)
        self._engine_of_model = dict(engine_of_model)

    @property
    def engines(self) -> Sequence[E]:
        """The engines, in the order in which the catalogue first names them."""
        return tuple(self._engines.values())

    @property
    def batches(self) -> Mapping[str, Tally]:
        """Rows that shared a step so far, by model, of the engines that batch themselves."""
        rows: dict[str, Tally] = {}
        for engine in self._engines.values():
            if isinstance(engine, HasBatches):
                rows.update(engine.batches)
        return rows

    def engine_of(self, model: str) -> E:
        """Returns the engine that runs `model`, a catalogue id.

        Raises:
            NotFound: None does.
        """
        return self._engines[find_model(self._engine_of_model, model)]

    async def load(self) -> None:
        """Loads one engine after the other: together they might not fit while loading.

        Raises:
            AtriumError: No engine could load; the first one's error.
        """
        await load_each(self._engines, lambda name: self._engines[name].load())

    async def close(self) -> None:
        """Closes every engine, also after one fails to close."""
        errors: list[Exception] = []
        for engine in self._engines.values():
            try:
                await engine.close()
            except Exception as error:  # the others must be closed all the same
                errors.append(error)
        if errors:
            raise ExceptionGroup("engines failed to close", errors)

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models of all engines, in catalogue order."""
        known = {model.id: model for engine in self._engines.values() for model in engine.models()}
        return tuple(known[model] for model in self._engine_of_model if model in known)

    async def verify(self, model: str) -> None:
        """Runs a small pass on its engine."""
        await self.engine_of(model).verify(model)

    async def load_model(self, model: str) -> None:
        """Loads a single model, where its engine can."""
        engine = self.engine_of(model)
        if not isinstance(engine, LoadsModels):
            raise Unimplemented(f"The engine {engine.name} loads its models at start only.")
        await engine.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Unloads a single model, where its engine can."""
        engine = self.engine_of(model)
        if not isinstance(engine, UnloadsModels):
            raise Unimplemented(f"The engine {engine.name} keeps its models loaded.")
        await engine.unload_model(model)
