"""Loaded sets of weights, each with its batcher, shared by the entries that use the same.

`engines/diffusers.py` takes one for each model that it loads and gives it back.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from atrium_common.catalogue import ModelEntry
from atrium_common.processors import processors
from atrium_common.telemetry.tally import ROWS, Tally
from atrium_common.weights import WeightStore
from atrium_common.work import DeviceThread
from atrium_diffusion.batcher import BatchLimits, StepBatcher
from atrium_diffusion.domain import AppliedLora
from atrium_diffusion.engines.diffusers_options import DiffusersOptions
from atrium_diffusion.sdxl.loading import load_components
from atrium_diffusion.sdxl.lora import LoraSet
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.sdxl.memory import MemoryModel
from atrium_diffusion.sdxl.model import SdxlModel


@dataclass(frozen=True, slots=True)
class _Key:
    """What entries have in common that share weights."""

    folder: Path
    dtype: torch.dtype
    device: torch.device
    options: DiffusersOptions
    adapters: tuple[str, ...]


@dataclass(slots=True, eq=False)
class LoadedWeights:
    """One loaded model.

    Attributes:
        model: The weights; only `check_prompt` may be called outside of the batcher.
        batcher: Draws with it.
        loras: What may be applied to it.
        failure: Why the batcher's thread died; empty while it lives.
        users: Ids of the entries that use it.
    """

    model: SdxlModel
    batcher: StepBatcher
    loras: LoraSet
    failure: str = ""
    users: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class WeightsShare:
    """An entry's hold on loaded weights, from `take` to `give_back`."""

    entry: str
    weights: LoadedWeights


@dataclass(slots=True)
class SharedWeights:
    """The loaded sets of weights. Not to be called twice at once.

    Attributes:
        store: Where files are.
        thread: Reads and frees, one after the other: so nothing holds on to weights any
            more when their memory is given back.
        batches: Pictures that shared each tick, by the entry that loaded the weights.
    """

    store: WeightStore
    thread: DeviceThread
    batches: defaultdict[str, Tally] = field(
        default_factory=lambda: defaultdict(lambda: Tally(ROWS))
    )
    _loaded: dict[_Key, LoadedWeights] = field(default_factory=dict)

    async def take(
        self, entry: ModelEntry, options: DiffusersOptions, adapters: LoraFiles
    ) -> WeightsShare:
        """Returns an entry's weights, loaded if need be.

        Args:
            entry: The model.
            options: Its options; what requests get may differ where weights are shared.
            adapters: What may be applied to it.

        Raises:
            WeightsError: Its files can't be had, or do not hold.
            Exception: Whatever torch makes of a device that it can't use.
        """
        folder = await self.thread.call(self.store.ensure, entry)
        key = _key(folder, entry, options, adapters)
        loaded = self._loaded.get(key)
        if loaded is None or loaded.failure:
            loaded = self._loaded[key] = await self._load(entry.id, key, adapters)
        loaded.users.add(entry.id)
        return WeightsShare(entry.id, loaded)

    def used_by_others(
        self, entry: ModelEntry, options: DiffusersOptions, adapters: LoraFiles
    ) -> bool:
        """Tells whether another entry keeps this one's weights loaded; reads no weights."""
        folder = self.store.locate(entry) if self._loaded else None
        if folder is None:
            return False
        loaded = self._loaded.get(_key(folder, entry, options, adapters))
        return loaded is not None and bool(loaded.users - {entry.id})

    async def give_back(self, share: WeightsShare) -> None:
        """Stops weights that nobody uses any more; they are freed with the last reference."""
        loaded = share.weights
        loaded.users.discard(share.entry)
        if loaded.users:
            return
        for key, kept in tuple(self._loaded.items()):
            if kept is loaded:
                del self._loaded[key]
        await self.thread.call(loaded.batcher.stop)
        await self.thread.flush()

    @asynccontextmanager
    async def holding(
        self, share: WeightsShare, loras: Sequence[AppliedLora]
    ) -> AsyncIterator[None]:
        """Has adapters in memory for the block, read here and not by the batcher's thread.

        Raises:
            WeightsError: A file is missing, damaged, or not for this model.
        """
        adapters = share.weights.loras
        missing = adapters.hold(loras)
        try:
            if missing:
                await self.thread.call(adapters.read, missing)
            yield
        finally:
            adapters.release(loras)

    async def _load(self, name: str, key: _Key, adapters: LoraFiles) -> LoadedWeights:
        model, memory, loras = await self.thread.call(_read, key, adapters)

        def failed(why: str) -> None:
            loaded.failure = why

        options = key.options
        batcher = StepBatcher(
            model,
            limits=BatchLimits(
                max_batch=options.max_batch,
                memory_bytes=memory.budget(options.memory_budget_mib),
                bytes_per_pixel=memory.step_bytes_per_pixel,
            ),
            events=asyncio.get_running_loop(),
            name=f"diffusers-{name}",
            threads=options.threads or min(torch.get_num_threads(), processors()),
            on_failure=failed,
            batches=self.batches[name],
        )
        loaded = LoadedWeights(model, batcher, loras)
        batcher.start()
        return loaded


def _read(key: _Key, adapters: LoraFiles) -> tuple[SdxlModel, MemoryModel, LoraSet]:
    """Reads the files; blocking."""
    options = key.options
    adapters.prepare()
    components = load_components(
        key.folder,
        dtype=key.dtype,
        device=key.device,
        variant=options.variant,
        vae=options.vae,
    )
    memory = MemoryModel.of(components.unet, components.vae)
    loras = LoraSet(components, adapters)
    model = SdxlModel(
        components,
        device=key.device,
        dtype=key.dtype,
        memory=memory,
        memory_budget_mib=options.memory_budget_mib,
        adapters=loras,
    )
    return model, memory, loras


def _key(folder: Path, entry: ModelEntry, options: DiffusersOptions, adapters: LoraFiles) -> _Key:
    return _Key(
        folder=folder,
        dtype=_dtype(entry, options),
        device=device_of(options),
        options=options.loading(),
        adapters=adapters.ids,
    )


def device_of(options: DiffusersOptions) -> torch.device:
    """Returns where a model with these options runs."""
    if options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", options.device_index)


def _dtype(entry: ModelEntry, options: DiffusersOptions) -> torch.dtype:
    own = "float32" if device_of(options).type == "cpu" else "float16"
    dtype: torch.dtype = getattr(torch, entry.dtype or own)
    return dtype
