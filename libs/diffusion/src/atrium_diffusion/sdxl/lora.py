"""LoRAs over a loaded SDXL: which ones are in memory, and which ones act.

The model's own weights are never changed: peft puts a layer with the adapters' products
beside each one that an adapter touches. `SdxlModel.adapt` calls this in the batcher's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import (
    delete_adapter_layers,
    recurse_remove_peft_layers,
    set_adapter_layers,
    set_weights_and_activate_adapters,
)
from peft import get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn

from atrium_common.weights import WeightsError
from atrium_diffusion.domain import AppliedLora
from atrium_diffusion.sdxl.files import bad
from atrium_diffusion.sdxl.loading import Components
from atrium_diffusion.sdxl.lora_files import LoraFiles

_Parts = dict[str, nn.Module]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An adapter in memory: peft's name for it, and the components that it changes."""

    name: str
    parts: frozenset[str]


class LoraSet:
    """The adapters of one loaded model. Not thread-safe: one thread uses the model."""

    def __init__(self, components: Components, files: LoraFiles, *, kept: int = 4) -> None:
        """Starts with none in memory and none acting.

        Args:
            components: The model.
            files: Where the adapters are.
            kept: Adapters that stay in memory, beside those that act; the least recently
                used one leaves first.
        """
        self._unet = components.unet
        self._parts: _Parts = {
            "unet": components.unet,
            "text_encoder": components.text_encoder,
            "text_encoder_2": components.text_encoder_2,
        }
        self._files = files
        self._kept = kept
        self._loaded: dict[str, _Loaded] = {}  # the least recently used first
        self._acting: tuple[AppliedLora, ...] = ()
        self._names = (f"lora{number}" for number in count())  # an id may hold a dot

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
        try:
            for lora in wanted:
                self._load(lora)
        except BaseException:
            self._apply(self._acting)  # fresh layers act from the start
            raise
        self._apply(wanted)
        self._acting = wanted

    def unload(self) -> None:
        """Drops every adapter and restores the model's own layers, the very same objects."""
        for identifier in self.loaded:
            self._drop(identifier)
        for part in self._parts.values():
            recurse_remove_peft_layers(part)
        self._acting = ()

    def _make_room(self, wanted: Sequence[AppliedLora]) -> None:
        needed = {lora.id for lora in (*wanted, *self._acting)}
        spare = [identifier for identifier in self._loaded if identifier not in needed]
        fresh = sum(lora.id not in self._loaded for lora in wanted)
        while spare and len(self._loaded) + fresh > self._kept:
            self._drop(spare.pop(0))

    def _drop(self, identifier: str) -> None:
        self._remove(self._loaded.pop(identifier).name)

    def _remove(self, name: str) -> None:
        for part in self._parts.values():
            delete_adapter_layers(part, name)

    def _load(self, lora: AppliedLora) -> None:
        loaded = self._loaded.pop(lora.id, None)
        if loaded is None:
            path = self._files.checked(lora)
            name = next(self._names)
            try:
                loaded = _Loaded(name, self._insert(path, name))
            except WeightsError:
                self._remove(name)
                raise
            except torch.OutOfMemoryError:
                self._remove(name)
                raise
            except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
                self._remove(name)
                raise bad(path, f"no LoRA for this model ({error})") from error
        self._loaded[lora.id] = loaded

    def _insert(self, path: Path, name: str) -> frozenset[str]:
        """Puts an adapter's layers beside the model's; returns the components it changes."""
        _refuse_dora(path)
        loader = StableDiffusionXLLoraLoaderMixin
        state, alphas, metadata = loader.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            unet_config=self._unet.config,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
        counts = _count(path, state, self._parts)
        for part, model in self._parts.items():
            if not counts[part]:
                continue
            ours = {
                key: value.to(self._unet.device, self._unet.dtype)
                for key, value in state.items()
                if key.startswith(f"{part}.")
            }
            if part == "unet":
                loader.load_lora_into_unet(
                    ours, alphas, model, adapter_name=name, metadata=metadata
                )
            else:
                loader.load_lora_into_text_encoder(
                    ours, alphas, model, prefix=part, adapter_name=name, metadata=metadata
                )
            placed = len(get_peft_model_state_dict(model, adapter_name=name))
            if placed != counts[part]:
                raise bad(path, f"{counts[part] - placed} of its tensors fit no layer of {part}")
            model.eval().requires_grad_(False)
        return frozenset(part for part, number in counts.items() if number)

    def _apply(self, loras: Sequence[AppliedLora]) -> None:
        for part, model in self._parts.items():
            acting = [
                (self._loaded[lora.id].name, lora.scale)
                for lora in loras
                if part in self._loaded[lora.id].parts
            ]
            set_adapter_layers(model, enabled=bool(acting))
            if acting:
                names, scales = zip(*acting, strict=True)
                set_weights_and_activate_adapters(model, list(names), list(scales))
                model.requires_grad_(False)


def _count(path: Path, state: dict[str, Tensor], parts: _Parts) -> dict[str, int]:
    """Counts an adapter's tensors by component.

    Raises:
        WeightsError: It changes something else, or in another way than a LoRA does.
    """
    counts = dict.fromkeys(parts, 0)
    for key in state:
        part = key.partition(".")[0]
        if part not in counts:
            raise bad(path, f"{key} is no part of SDXL's UNet or text encoders")
        if "lora" not in key:
            raise bad(path, f"{key} is not of a LoRA")
        counts[part] += 1
    if not any(counts.values()):
        raise bad(path, "holds no LoRA")
    return counts


def _refuse_dora(path: Path) -> None:
    """Refuses what the loader would read without the part that makes it a DoRA."""
    with safe_open(path, framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118  # it is no dictionary
            if key.endswith("dora_scale") or "lora_magnitude_vector" in key:
                raise bad(path, "is a DoRA; only LoRAs are supported")
