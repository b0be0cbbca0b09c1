"""LoRAs over a loaded SDXL: which ones are in memory, and which ones act.

The model's own weights and layers are never touched: a hook on each layer that an adapter
changes adds the adapter's product to what the layer computes, and without hooks the model is
bit for bit its own. `SdxlModel.adapt` calls this in the batcher's thread.

Files are read before that, in another thread: for as long as a request is drawn it holds its
adapters (`hold`, `read`, `release`), so that no other picture waits for a disk.

Whoever compiles the UNet must let the compiler guard hooks
(``torch._dynamo.config.skip_nnmodule_hook_guards = False``), or it keeps the first ones.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from atrium_diffusion.domain import AppliedLora
from atrium_diffusion.sdxl.loading import Components
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.sdxl.lora_weights import Changes, LowRank, read_lora

_Acting = list[tuple[LowRank, float]]


@dataclass(frozen=True, slots=True)
class _Read:
    """An adapter's changes: as they were read, and on the model's device."""

    host: Changes
    device: Changes


class LoraSet:
    """The adapters of one loaded model.

    `hold`, `read` and `release` may be called in any thread; all else in the one that uses
    the model.
    """

    def __init__(self, components: Components, files: LoraFiles, *, kept: int = 4) -> None:
        """Starts with none in memory and none acting.

        Args:
            components: The model.
            files: Where the adapters are.
            kept: Adapters that stay in memory; the least recently used one leaves first.
                Those of one request stay together, however many they are.
        """
        self._unet = components.unet
        self._parts: dict[str, nn.Module] = {
            "unet": components.unet,
            "text_encoder": components.text_encoder,
            "text_encoder_2": components.text_encoder_2,
        }
        self._device, self._dtype = components.unet.device, components.unet.dtype
        self._files = files
        self._kept = kept
        self._loaded: dict[str, _Read] = {}  # the least recently used first
        self._lock = threading.Lock()  # of what follows, and of changes to `_loaded`
        self._holders: Counter[str] = Counter()
        self._held: dict[str, Changes] = {}
        self._acting: tuple[AppliedLora, ...] = ()
        self._hooks: list[RemovableHandle] = []

    @property
    def loaded(self) -> tuple[str, ...]:
        """Ids in memory, the least recently used first."""
        return tuple(self._loaded)

    def hold(self, loras: Sequence[AppliedLora]) -> list[AppliedLora]:
        """Keeps these in the host's memory until `release`; returns those to `read` first."""
        missing = []
        with self._lock:
            for lora in loras:
                self._holders[lora.id] += 1
                if lora.id in self._loaded:
                    self._held[lora.id] = self._loaded[lora.id].host
                elif lora.id not in self._held:
                    missing.append(lora)
        return missing

    def read(self, loras: Sequence[AppliedLora]) -> None:
        """Reads those files that are held and not in memory; blocking.

        Raises:
            WeightsError: A file is missing, damaged, or not for this model.
        """
        for lora in loras:
            with self._lock:
                needed = self._holders[lora.id] and lora.id not in self._held
            if not needed:
                continue
            changes = self._from_file(lora)
            with self._lock:
                if self._holders[lora.id]:  # else its reader has left
                    self._held[lora.id] = changes

    def release(self, loras: Sequence[AppliedLora]) -> None:
        """Ends what `hold` began."""
        with self._lock:
            for lora in loras:
                self._holders[lora.id] -= 1
                if not self._holders[lora.id]:
                    del self._holders[lora.id]
                    self._held.pop(lora.id, None)

    def activate(self, loras: Sequence[AppliedLora]) -> None:
        """Makes exactly these act on the UNet and the text encoders, with their scales.

        Reads what nobody holds and is not in memory. If it raises, what acted before still does.

        Raises:
            WeightsError: A file is missing, damaged, or not for this model.
        """
        wanted = tuple(loras)
        if wanted == self._acting:
            return
        self._make_room(wanted)
        for lora in wanted:
            self._load(lora)
        self._hook(wanted)
        self._acting = wanted

    def unload(self) -> None:
        """Drops every adapter."""
        self._hook(())
        self._acting = ()
        with self._lock:
            self._loaded.clear()

    def _make_room(self, wanted: Sequence[AppliedLora]) -> None:
        needed = {lora.id for lora in (*wanted, *self._acting)}
        spare = [identifier for identifier in self._loaded if identifier not in needed]
        fresh = sum(lora.id not in self._loaded for lora in wanted)
        while spare and len(self._loaded) + fresh > self._kept:
            with self._lock:
                del self._loaded[spare.pop(0)]

    def _load(self, lora: AppliedLora) -> None:
        with self._lock:
            known, held = self._loaded.get(lora.id), self._held.get(lora.id)
        if known is None:
            host = held or self._from_file(lora)
            known = _Read(host, {layer: each.to(self._device) for layer, each in host.items()})
        with self._lock:
            self._loaded.pop(lora.id, None)
            self._loaded[lora.id] = known  # the most recently used is the last

    def _from_file(self, lora: AppliedLora) -> Changes:
        return read_lora(
            self._files.checked(lora), self._parts, unet_config=self._unet.config, dtype=self._dtype
        )

    def _hook(self, loras: Sequence[AppliedLora]) -> None:
        for hook in self._hooks:
            hook.remove()
        by_layer: dict[nn.Module, _Acting] = {}
        for lora in loras:
            for layer, change in self._loaded[lora.id].device.items():
                by_layer.setdefault(layer, []).append((change, lora.scale))
        self._hooks = [
            layer.register_forward_hook(_adding(acting)) for layer, acting in by_layer.items()
        ]


def _adding(acting: _Acting) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for change, scale in acting:
            output = output.add(change(layer, inputs[0]), alpha=scale)
        return output

    return add
