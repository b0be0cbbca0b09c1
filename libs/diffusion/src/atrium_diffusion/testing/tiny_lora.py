"""Makes LoRA files with random weights for a checkpoint, in the dialects that people share.

Tests call `make`. The names and shapes of the layers come from the checkpoint's own files.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Layout = Literal["diffusers", "kohya", "kohya-diffusers"]
"""``"diffusers"``: as diffusers saves them. ``"kohya"``: as sd-scripts does for SDXL, with the
block names of the original code and an alpha per layer. ``"kohya-diffusers"``: the same with
diffusers' names, their dots as underscores."""

_ATTENTION = re.compile(r"to_[qkv]|to_out\.0|[qkv]_proj|out_proj")
_BLOCK = re.compile(
    r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)"
)
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")
_BLOCKS_PER_LEVEL = 3
_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_TEXT = {"text_encoder": "te1", "text_encoder_2": "te2"}


def make(
    path: Path,
    checkpoint: Path,
    *,
    layout: Layout = "diffusers",
    rank: int = 4,
    alpha: float | None = None,
    text: bool = False,
    everywhere: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a file; the same seed makes the same weights, whatever the layout.

    Args:
        path: The file; its folder is created.
        checkpoint: SDXL folder that it is for.
        layout: How its tensors are named.
        rank: Rank of every change.
        alpha: The change counts alpha / rank; every second layer has twice that alpha. Not
            for ``"diffusers"``; ``None`` takes the rank.
        text: Change the text encoders' attention too.
        everywhere: Change every layer of the UNet, convolutions too, not its attention alone.
        seed: Decides the weights.

    Returns:
        `path`.
    """
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    layers = _layers(checkpoint, text=text, everywhere=everywhere)
    for number, (part, name, (outputs, *inputs)) in enumerate(layers):
        # Strong enough that a picture shows it, weak enough that it stays a picture.
        down = torch.randn(rank, *inputs, generator=random) / torch.Size(inputs).numel() ** 0.5
        up = torch.randn(outputs, rank, *[1] * len(inputs[1:]), generator=random) / rank
        if everywhere:
            up /= 8
        if layout == "diffusers":
            tensors[f"{part}.{name}.lora_A.weight"] = down
            tensors[f"{part}.{name}.lora_B.weight"] = up
        else:
            kohya = kohya_name(part, name, original=layout == "kohya")
            tensors[f"{kohya}.lora_down.weight"] = down
            tensors[f"{kohya}.lora_up.weight"] = up
            tensors[f"{kohya}.alpha"] = torch.tensor((alpha or rank) * (1.0 + number % 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def kohya_name(part: str, name: str, *, original: bool) -> str:
    """What sd-scripts calls a layer.

    Args:
        part: Component, e.g. ``"unet"``.
        name: The layer's name in diffusers.
        original: By the block names of the original code, else by diffusers'.
    """
    if part in _TEXT:
        return f"lora_{_TEXT[part]}_{name}".replace(".", "_")
    return f"lora_unet_{_original(name) if original else name}".replace(".", "_")


def _layers(
    checkpoint: Path, *, text: bool, everywhere: bool
) -> Iterator[tuple[str, str, list[int]]]:
    """Gives component, name and the weight's shape of each layer."""
    files = {"unet": "diffusion_pytorch_model"} | (dict.fromkeys(_TEXT, "model") if text else {})
    for part, stem in files.items():
        with safe_open(checkpoint / part / f"{stem}.safetensors", framework="pt") as weights:
            for key in sorted(weights.keys()):
                name, _, kind = key.rpartition(".")
                shape: list[int] = weights.get_slice(key).get_shape()
                attention = re.fullmatch(rf".+\.(?:{_ATTENTION.pattern})", name)
                any_layer = everywhere and part == "unet" and len(shape) > 1
                if kind == "weight" and (attention or any_layer):
                    yield part, name, shape


def _original(name: str) -> str:
    """A layer of the UNet in the original code, where blocks of all levels are numbered on."""
    if name in _OUTER:
        return _OUTER[name]
    if found := _MIDDLE.fullmatch(name):
        kind, number, rest = found[1], int(found[2]), found[3]
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * number}.{_RESNET[rest]}"
    found = _BLOCK.fullmatch(name)
    if found is None:
        raise ValueError(f"not a layer of SDXL: {name}")
    way, kind, rest = found[1], found[3], found[5]
    first = _BLOCKS_PER_LEVEL * int(found[2])
    if kind == "downsamplers":
        return f"input_blocks.{first + _BLOCKS_PER_LEVEL}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + _BLOCKS_PER_LEVEL - 1}.2.conv"
    # The first input block is a convolution.
    number = first + int(found[4])
    block = f"input_blocks.{number + 1}" if way == "down" else f"output_blocks.{number}"
    return f"{block}.0.{_RESNET[rest]}" if kind == "resnets" else f"{block}.1.{rest}"
