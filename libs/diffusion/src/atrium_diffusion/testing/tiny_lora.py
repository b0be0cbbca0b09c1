"""Makes LoRA files with random weights for a checkpoint, in the layouts that people share.

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

Layout = Literal["diffusers", "kohya"]
"""``"diffusers"``: as diffusers saves them. ``"kohya"``: as sd-scripts does for SDXL, with the
block names of the original code and an alpha per layer."""

_LAYER = re.compile(r"(.*(?:to_[qkv]|to_out\.0|[qkv]_proj|out_proj))\.weight")
_ATTENTION = re.compile(r"(down_blocks|mid_block|up_blocks)(?:\.(\d))?\.attentions\.(\d)\.(.*)")
_LAYERS_PER_BLOCK = 2
_TEXT = {"text_encoder": "te1", "text_encoder_2": "te2"}


def make(
    path: Path,
    checkpoint: Path,
    *,
    layout: Layout = "diffusers",
    rank: int = 4,
    alpha: float | None = None,
    text: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a file that changes every attention layer; the same seed makes the same one.

    Args:
        path: The file; its folder is created.
        checkpoint: SDXL folder that it is for.
        layout: How its tensors are named.
        rank: Rank of every change.
        alpha: The change counts alpha / rank; every second layer has twice that alpha.
            Only for ``"kohya"``; ``None`` takes the rank.
        text: Change the text encoders too.
        seed: Decides the weights.

    Returns:
        `path`.
    """
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for number, (part, name, outputs, inputs) in enumerate(_layers(checkpoint, text=text)):
        # Strong enough that a picture shows it, weak enough that it stays a picture.
        down = torch.randn(rank, inputs, generator=random) / inputs**0.5
        up = torch.randn(outputs, rank, generator=random) / rank
        if layout == "diffusers":
            tensors[f"{part}.{name}.lora_A.weight"] = down
            tensors[f"{part}.{name}.lora_B.weight"] = up
        else:
            kohya = _kohya(part, name)
            tensors[f"{kohya}.lora_down.weight"] = down
            tensors[f"{kohya}.lora_up.weight"] = up
            tensors[f"{kohya}.alpha"] = torch.tensor((alpha or rank) * (1.0 + number % 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _layers(checkpoint: Path, *, text: bool) -> Iterator[tuple[str, str, int, int]]:
    """Gives component, name, outputs and inputs of each layer."""
    files = {"unet": "diffusion_pytorch_model"} | (dict.fromkeys(_TEXT, "model") if text else {})
    for part, stem in files.items():
        with safe_open(checkpoint / part / f"{stem}.safetensors", framework="pt") as weights:
            for key in sorted(weights.keys()):
                if found := _LAYER.fullmatch(key):
                    outputs, inputs = weights.get_slice(key).get_shape()
                    yield part, found[1], outputs, inputs


def _kohya(part: str, name: str) -> str:
    if part in _TEXT:
        return f"lora_{_TEXT[part]}_{name}".replace(".", "_")
    found = _ATTENTION.fullmatch(name)
    if found is None:
        raise ValueError(f"not an attention layer: {name}")
    kind, block, layer, rest = found[1], int(found[2] or 0), int(found[3]), found[4]
    if kind == "down_blocks":  # the first input block is a convolution
        place = f"input_blocks_{block * (_LAYERS_PER_BLOCK + 1) + layer + 1}_1"
    elif kind == "mid_block":
        place = "middle_block_1"
    else:
        place = f"output_blocks_{block * (_LAYERS_PER_BLOCK + 1) + layer}_1"
    return f"lora_unet_{place}_{rest}".replace(".", "_")
