"""Loaded sets of weights, each with its batcher, shared by the entries that use the same.

`engines/diffusers.py` takes one for each model that it loads and gives it back.
"""

import asyncio
import gc
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch

from atrium_common.catalogue import ModelEntry
from atrium_common.telemetry.tally import ROWS, Tally
from atrium_common.weights import WeightStore
from atrium_common.work import DeviceThread
from atrium_diffusion.batcher import BatchLimits, StepBatcher
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
        failure: Why the batcher's thread died; empty while it lives.
        users: Entries that use it.
    """

    model: SdxlModel
    batcher: StepBatcher
    failure: str = ""
    users: int = 0


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
    ) -> LoadedWeights:
        """Returns an entry's weights, loaded if need be.

        Args:
            entry: The model.
            options: Its options; what requests get may differ where weights are shared.
            adapters: What may be applied to it.

        Raises:
            WeightsError: Its files can't be had, or do not hold.
            Exception: Whatever torch makes of a device that it can't use.
        """
        key = _Key(
            folder=await self.thread.call(self.store.ensure, entry),
            dtype=_dtype(entry, options),
            device=_device(options),
            options=options.loading(),
            adapters=adapters.ids,
        )
        loaded = self._loaded.get(key)
        if loaded is None or loaded.failure:
            loaded = self._loaded[key] = await self._load(entry.id, key, adapters)
        loaded.users += 1
        return loaded

    async def give_back(self, loaded: LoadedWeights) -> None:
        """Stops weights that nobody uses any more; `release_memory` then frees them."""
        loaded.users -= 1
        if loaded.users:
            return
        for key, kept in tuple(self._loaded.items()):
            if kept is loaded:
                del self._loaded[key]
        await self.thread.call(loaded.batcher.stop)

    async def release_memory(self) -> None:
        """Gives memory back that torch would keep for the next model."""
        await self.thread.call(_release)

    async def _load(self, name: str, key: _Key, adapters: LoraFiles) -> LoadedWeights:
        model, memory = await self.thread.call(_read, key, adapters)

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
            threads=options.threads or torch.get_num_threads(),
            on_failure=failed,
            batches=self.batches[name],
        )
        loaded = LoadedWeights(model, batcher)
        batcher.start()
        return loaded


def _read(key: _Key, adapters: LoraFiles) -> tuple[SdxlModel, MemoryModel]:
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
    model = SdxlModel(
        components,
        device=key.device,
        dtype=key.dtype,
        memory=memory,
        memory_budget_mib=options.memory_budget_mib,
        adapters=LoraSet(components, adapters) if adapters.ids else None,
    )
    return model, memory


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device(options: DiffusersOptions) -> torch.device:
    if options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", options.device_index)


def _dtype(entry: ModelEntry, options: DiffusersOptions) -> torch.dtype:
    own = "float32" if _device(options).type == "cpu" else "float16"
    dtype: torch.dtype = getattr(torch, entry.dtype or own)
    return dtype
