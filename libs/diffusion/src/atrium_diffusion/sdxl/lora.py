"""LoRAs over a loaded SDXL: which ones are in memory, and which ones act.

The model's own weights and layers are never touched: a hook on each layer that an adapter
changes adds the adapter's product to what the layer computes, and without hooks the model is
bit for bit its own. `SdxlModel.adapt` calls this in the batcher's thread.

Whoever compiles the UNet must let the compiler guard hooks
(``torch._dynamo.config.skip_nnmodule_hook_guards = False``), or it keeps the first ones.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from atrium_diffusion.domain import AppliedLora
from atrium_diffusion.sdxl.loading import Components
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.sdxl.lora_weights import Changes, LowRank, read_lora

_Acting = list[tuple[LowRank, float]]


class LoraSet:
    """The adapters of one loaded model. Not thread-safe: one thread uses the model."""

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
        self._loaded: dict[str, Changes] = {}  # the least recently used first
        self._acting: tuple[AppliedLora, ...] = ()
        self._hooks: list[RemovableHandle] = []

    @property
    def loaded(self) -> tuple[str, ...]:
        """Ids in memory, the least recently used first."""
        return tuple(self._loaded)

    def activate(self, loras: Sequence[AppliedLora]) -> None:
        """Makes exactly these act on the UNet and the text encoders, with their scales.

        Loads what is not in memory. If it raises, what acted before still does.

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
        self._loaded.clear()

    def _make_room(self, wanted: Sequence[AppliedLora]) -> None:
        needed = {lora.id for lora in (*wanted, *self._acting)}
        spare = [identifier for identifier in self._loaded if identifier not in needed]
        fresh = sum(lora.id not in self._loaded for lora in wanted)
        while spare and len(self._loaded) + fresh > self._kept:
            del self._loaded[spare.pop(0)]

    def _load(self, lora: AppliedLora) -> None:
        changes = self._loaded.pop(lora.id, None)
        if changes is None:
            changes = read_lora(
                self._files.checked(lora),
                self._parts,
                unet_config=self._unet.config,
                device=self._device,
                dtype=self._dtype,
            )
        self._loaded[lora.id] = changes

    def _hook(self, loras: Sequence[AppliedLora]) -> None:
        for hook in self._hooks:
            hook.remove()
        by_layer: dict[nn.Module, _Acting] = {}
        for lora in loras:
            for layer, change in self._loaded[lora.id].items():
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
