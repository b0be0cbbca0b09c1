"""Reads a LoRA file: which layers of SDXL it changes, and how. `LoraSet` calls it.

Files come in two dialects: diffusers' own, and that of sd-scripts (kohya), whose names
diffusers translates. Their alphas are multiplied into the weights here, layer by layer:
diffusers 0.42 drops those that differ from the most frequent one, with a warning.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from atrium_diffusion.sdxl.files import bad

_KEY = re.compile(r"(\w+)\.(.+?)(?:\.lora_linear_layer|\.lora|_lora)(_A|_B|\.down|\.up)\.weight")
_SIDES = {"_A": "down", ".down": "down", "_B": "up", ".up": "up"}


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What an adapter adds to one layer: ``up(down(x))``.

    Attributes:
        down: Shape (rank, inputs), or (rank, inputs, height, width) for a convolution.
        up: Shape (outputs, rank), or (outputs, rank, 1, 1); every scale of the file is in it.
    """

    down: Tensor
    up: Tensor

    def __call__(self, layer: nn.Module, inputs: Tensor) -> Tensor:
        """Computes it for the inputs of `layer`."""
        if isinstance(layer, nn.Conv2d):
            inner = functional.conv2d(
                inputs, self.down, None, layer.stride, layer.padding, layer.dilation
            )
            return functional.conv2d(inner, self.up)
        return functional.linear(functional.linear(inputs, self.down), self.up)

    def to(self, target: torch.device | torch.dtype) -> "LowRank":
        """The same on another device or in another type."""
        return LowRank(self.down.to(target), self.up.to(target))


Changes = dict[nn.Module, LowRank]
"""What an adapter does, by layer."""


def read_lora(
    path: Path,
    parts: Mapping[str, nn.Module],
    *,
    unet_config: object,
    dtype: torch.dtype,
) -> Changes:
    """Reads a file whose head can be read into the host's memory.

    Args:
        path: The safetensors file.
        parts: ``"unet"``, ``"text_encoder"`` and ``"text_encoder_2"``.
        unet_config: The UNet's; it tells how the other dialect numbers its blocks.
        dtype: What they are computed in: the model's.

    Raises:
        WeightsError: It is no LoRA, or not for this model; one line that says why.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    if any(key.endswith("dora_scale") or "lora_magnitude_vector" in key for key in tensors):
        raise bad(path, "is a DoRA; only LoRAs are supported")
    try:
        scales = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        if any(key.startswith("lora_") for key in tensors):
            tensors = _translated(_with_alphas(tensors), parts["unet"], unet_config)
    except (ValueError, KeyError, IndexError) as error:
        raise bad(path, f"is of no known dialect ({error})") from error
    changes: Changes = {}
    for part, pairs in _pairs(path, tensors, parts).items():
        layers = dict(parts[part].named_modules())
        for old_name, pair in pairs.items():
            name = _layer_name(part, old_name, layers)
            layer = layers.get(name)
            if layer is None or len(pair) != 2 or not _fits(layer, **pair):
                raise bad(path, f"its {part}.{name} fits no layer of this model")
            scale = _scale(part, name, pair["down"].shape[0], scales)
            changes[layer] = _low_rank(layer, scale=scale, **pair).to(dtype)
    if not changes:
        raise bad(path, "holds no LoRA")
    return changes


def _with_alphas(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiplies the alphas of sd-scripts' files into the weights."""
    folded = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    for key, alpha in tensors.items():
        if key.endswith(".alpha"):
            name = key.removesuffix(".alpha")
            rank = tensors[f"{name}.lora_down.weight"].shape[0]
            up = f"{name}.lora_up.weight"
            folded[up] = tensors[up].float() * (float(alpha) / rank)
    return folded


def _translated(
    tensors: Mapping[str, Tensor], unet: nn.Module, unet_config: object
) -> dict[str, Tensor]:
    """Gives the layers of sd-scripts' files diffusers' names.

    Some files keep diffusers' names, with dots as underscores; those are looked up, since
    diffusers' own translation guesses where the dots were. The others go by the original
    code's names, which it knows.
    """
    ours = {f"lora_unet_{name.replace('.', '_')}": name for name, _ in unet.named_modules()}
    named: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name, _, side = key.partition(".lora_")
        if name in ours:
            named[f"unet.{ours[name]}.lora.{side}"] = value
        else:
            others[key] = value
    if others:
        others, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            others, unet_config=unet_config
        )
    return named | others


def _pairs(
    path: Path, tensors: Mapping[str, Tensor], parts: Mapping[str, nn.Module]
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Sorts tensors by component, layer and side."""
    pairs: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, value in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None or found[1] not in parts:
            raise bad(path, f"{key} is not of a LoRA for SDXL")
        pairs.setdefault(found[1], {}).setdefault(found[2], {})[_SIDES[found[3]]] = value
    return pairs


def _layer_name(part: str, name: str, layers: Mapping[str, nn.Module]) -> str:
    """Today's name of a layer, from what files of any age call it."""
    name = name.replace(".processor.", ".")
    if part == "unet":
        return re.sub(r"\.to_out$", ".to_out.0", name)
    name = re.sub(r"\.to_(q|k|v|out)$", r".\1_proj", name)
    return name if "text_model" in layers else name.removeprefix("text_model.")


def _fits(layer: nn.Module, *, down: Tensor, up: Tensor) -> bool:
    rank = down.shape[0]
    if isinstance(layer, nn.Linear):  # some files keep these as convolutions of one pixel
        wanted = (rank, layer.in_features), (layer.out_features, rank)
        return (tuple(down.flatten(1).shape), tuple(up.flatten(1).shape)) == wanted
    if isinstance(layer, nn.Conv2d) and layer.groups == 1:
        inputs, outputs = layer.in_channels, layer.out_channels
        wanted_down, wanted_up = (rank, inputs, *layer.kernel_size), (outputs, rank, 1, 1)
        return tuple(down.shape) == wanted_down and tuple(up.shape) == wanted_up
    return False


def _scale(part: str, name: str, rank: int, scales: Mapping[str, Any]) -> float:
    """What diffusers' files say in their metadata: alpha over the rank, or over its root."""
    alpha = scales.get(f"{part}.lora_alpha", rank)
    for pattern, value in (scales.get(f"{part}.alpha_pattern") or {}).items():
        if f".{name}".endswith(f".{pattern.removeprefix('^')}"):
            alpha = value
    return float(alpha / (math.sqrt(rank) if scales.get(f"{part}.use_rslora") else rank))


def _low_rank(layer: nn.Module, *, down: Tensor, up: Tensor, scale: float) -> LowRank:
    if isinstance(layer, nn.Linear):
        down, up = down.flatten(1), up.flatten(1)
    return LowRank(down, up.float() * scale)
