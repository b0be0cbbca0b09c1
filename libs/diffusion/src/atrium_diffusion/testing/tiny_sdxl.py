"""Makes SDXL checkpoints with random weights, for tests and measurements without the real ones.

The files are those of stabilityai/stable-diffusion-xl-base-1.0: the same folders, names,
configuration keys and tensor names, in single and in half precision, so an engine takes the
same way through the libraries. Tests call `make`; so does a measurement, with `FULL`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from atrium_diffusion.testing import sdxl_configs as configs
from atrium_diffusion.testing.clip_tokenizer import write_tokenizer
from atrium_diffusion.testing.sdxl_configs import FULL, TINY, Dimensions, write_json

__all__ = ["FULL", "TINY", "Dimensions", "make", "make_vae_fix"]


def make(folder: Path, *, dimensions: Dimensions = TINY, seed: int = 0) -> Path:
    """Writes a complete checkpoint; the same seed makes the same weights.

    Args:
        folder: Where it goes; it is created.
        dimensions: Size of the model.
        seed: Decides the weights.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True)
    write_json(folder / "model_index.json", configs.INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", configs.SCHEDULER)
    write_tokenizer(folder / "tokenizer", pad_token="<|endoftext|>")  # noqa: S106
    write_tokenizer(folder / "tokenizer_2", pad_token="!")  # noqa: S106
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        _write_model(folder / "unet", configs.unet(dimensions), UNet2DConditionModel)
        _write_model(folder / "vae", configs.vae(dimensions), AutoencoderKL)
        for number, name in enumerate(("text_encoder", "text_encoder_2")):
            _write_text_encoder(folder / name, configs.text_encoder(dimensions, number))
    return folder


def make_vae_fix(folder: Path, *, dimensions: Dimensions = TINY, seed: int = 1) -> Path:
    """Writes an autoencoder of another author, as madebyollin/sdxl-vae-fp16-fix is laid out.

    Its files lie in the folder itself, in single precision only, and its configuration says
    that half precision will do.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        config = configs.vae(dimensions) | {"force_upcast": False}
        _write_model(folder, config, AutoencoderKL, half=False)
    return folder


def _write_model(
    folder: Path,
    config: dict[str, object],
    model_class: type[UNet2DConditionModel | AutoencoderKL],
    *,
    half: bool = True,
) -> None:
    write_json(folder / "config.json", config)
    model: nn.Module = model_class.from_config(config)
    _write_tensors(folder, "diffusion_pytorch_model", model.state_dict(), half=half)


def _write_text_encoder(folder: Path, config: dict[str, object]) -> None:
    write_json(folder / "config.json", config)
    with_projection = config["architectures"] == ["CLIPTextModelWithProjection"]
    model_class = CLIPTextModelWithProjection if with_projection else CLIPTextModel
    options: dict[str, Any] = config
    model: nn.Module = model_class(CLIPTextConfig(**options))
    ours = model.state_dict()
    named = {_published(name): value for name, value in ours.items()}
    _write_tensors(folder, "model", named)


def _published(name: str) -> str:
    """A tensor's name in the published files, whatever the library calls it now."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def _write_tensors(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], *, half: bool = True
) -> None:
    singles = {name: value.contiguous() for name, value in tensors.items()}
    save_file(singles, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    if half:
        halves = {name: value.half() for name, value in singles.items()}
        save_file(halves, folder / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
