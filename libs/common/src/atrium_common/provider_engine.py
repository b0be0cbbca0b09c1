"""The part of an engine over an OpenAI-compatible provider that is the same in every service.

A service's `openai` engine adds what its models do. There are no weights: to load is to
read the keys, and a model is ready when its key is at hand.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

import openai

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine_models import find_model, model_info
from atrium_common.engine_options import read_options
from atrium_common.errors import Unavailable
from atrium_common.lifecycle import Lifecycle
from atrium_common.openai_upstream import UpstreamOptions, make_client
from atrium_common.weights import WeightStore
from atrium_common.work import Batching

OptionsT = TypeVar("OptionsT", bound=UpstreamOptions)


class ProviderEngine(Generic[OptionsT]):
    """Keeps the options and the clients of providers' models; is an `Engine` but for `verify`.

    Attributes:
        options_type: What a model's options are; set by each subclass.
        scheduling: As many requests at once as the most concurrent model takes.
    """

    name = "openai"
    options_type: type[OptionsT]

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        store: WeightStore | None = None,
        lifecycle: Lifecycle | None = None,
    ) -> None:
        """Takes the catalogue's entries; there are no weights to find, load or unload.

        Raises:
            CatalogueError: An option of a model does not hold.
        """
        del store, lifecycle
        self._entries = {entry.id: entry for entry in entries}
        self._options = {entry.id: read_options(self.options_type, entry) for entry in entries}
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        self._failures: dict[str, str] = {}
        most = max(option.max_concurrency for option in self._options.values())
        self.scheduling = Batching(slots=most)

    async def load(self) -> None:
        """Reads the keys. A model whose key is missing fails alone; the others serve."""
        for model, options in self._options.items():
            try:
                self._clients[model] = make_client(options)
            except LookupError as error:
                self._failures[model] = str(error.args[0])

    async def close(self) -> None:
        """Closes the connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models; READY means that a key is at hand, not that it holds."""
        return tuple(
            model_info(
                entry,
                engine=self.name,
                state=self._state(model),
                detail=self._failures.get(model, ""),
            )
            for model, entry in self._entries.items()
        )

    def _state(self, model: str) -> ModelState:
        if model in self._failures:
            return ModelState.FAILED
        return ModelState.READY if model in self._clients else ModelState.UNLOADED

    def entry(self, model: str) -> ModelEntry:
        """Returns the catalogue's entry of a model; `NotFound` if it has none."""
        return find_model(self._entries, model)

    def options(self, model: str) -> OptionsT:
        """Returns the catalogue's options of a model; `NotFound` if it has none."""
        return find_model(self._options, model)

    def client(self, model: str) -> openai.AsyncOpenAI:
        """Returns the client of a model's provider; `Unavailable` while it has none."""
        client = self._clients.get(model)
        if client is None:
            raise Unavailable(f"The model {model!r} is not ready.", reason="MODEL_NOT_READY")
        return client
