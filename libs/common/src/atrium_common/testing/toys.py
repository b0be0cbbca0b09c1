"""A toy engine whose models take what its catalogue says; for the lifecycle's tests.

Tests of services take it as a model for how an engine uses a `ModelHost`.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelInfo
from atrium_common.lifecycle import Lifecycle, ModelHandling, ModelHost

_START = datetime(2026, 1, 1, tzinfo=UTC)


def toy_entry(model: str, *, memory_mib: int | None = 1, **more: object) -> ModelEntry:
    """Makes a catalogue entry of a toy model."""
    fields = {"service": "llm", "capabilities": (Capability.CHAT,), "engine": "toy", **more}
    return ModelEntry.model_validate({"id": model, "memory_mib": memory_mib, **fields})


class ToyClock:
    """A clock that tests set; `now` is the same time as a date."""

    def __init__(self) -> None:
        """Starts at 1000 s."""
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Returns seconds."""
        return self.seconds

    def now(self) -> datetime:
        """Returns aware UTC."""
        return _START + timedelta(seconds=self.seconds)


class ToyModel:
    """A loaded toy model.

    Attributes:
        id: Its catalogue id.
        broken: Why it can't serve any more; tests set it.
    """

    def __init__(self, model: str) -> None:
        """Makes it."""
        self.id = model
        self.broken = ""


class ToyEngine:
    """Loads models that are nothing but their names.

    Attributes:
        opened: Ids of models, in the order in which their opening began.
        closed: Ids of models, in the order in which they were closed.
        inside: Models that are loaded now or being so, by id.
        gate: Opening waits here while it is cleared.
        faults: What opening a model raises, by id.
        silent: Models that open and do not answer.
        taken: Bytes that the device has taken, as the engine measures them.
    """

    name = "toy"

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        *,
        lifecycle: Lifecycle | None = None,
        now: Callable[[], datetime] = lambda: _START,
    ) -> None:
        """Reads the entries; loads nothing."""
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.inside: set[str] = set()
        self.faults: dict[str, Exception] = {}
        self.silent: set[str] = set()
        self.sizes = {entry.id: (entry.memory_mib or 1) << 20 for entry in entries}
        self.gate = asyncio.Event()
        self.gate.set()
        self.host: ModelHost[ToyModel] = ModelHost(
            self.name,
            entries,
            ModelHandling(
                open_model=self._open,
                warm_up=self._warm_up,
                close_model=self._close,
                failure=lambda loaded: loaded.broken,
                measure=lambda _: (1 << 30) + self.taken,
            ),
            lifecycle=lifecycle,
            now=now,
        )

    @property
    def taken(self) -> int:
        """Sums what is inside."""
        return sum(self.sizes[model] for model in self.inside)

    async def load(self) -> None:
        """Loads what is to be there at start."""
        await self.host.load()

    async def close(self) -> None:
        """Unloads all."""
        await self.host.close()

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models."""
        return self.host.models()

    async def verify(self, model: str) -> None:
        """Succeeds while it is loaded."""
        await self.host.verify(model)

    async def load_model(self, model: str) -> None:
        """Loads one."""
        await self.host.load_model(model)

    async def unload_model(self, model: str) -> None:
        """Unloads one."""
        await self.host.unload_model(model)

    async def _open(self, entry: ModelEntry) -> ToyModel:
        self.opened.append(entry.id)
        await self.gate.wait()
        if (fault := self.faults.get(entry.id)) is not None:
            raise fault
        self.inside.add(entry.id)
        return ToyModel(entry.id)

    async def _warm_up(self, entry: ModelEntry, loaded: ToyModel) -> None:
        if entry.id in self.silent:
            raise RuntimeError("answers nothing")

    async def _close(self, entry: ModelEntry, loaded: ToyModel) -> None:
        await asyncio.sleep(0)
        self.closed.append(entry.id)
        self.inside.discard(entry.id)
