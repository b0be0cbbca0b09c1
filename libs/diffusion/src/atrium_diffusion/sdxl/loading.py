"""Loads SDXL's components from a folder: safetensors alone, from the disk alone, no code.

The folder is laid out as `stabilityai/stable-diffusion-xl-base-1.0` is. The engine calls
`load_components`; whatever is wrong with a folder is told in one line before it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from atrium_diffusion.sdxl.files import Weights, bad, find_weights, read_json, without_bars

_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("transformers", "CLIPTokenizer", "CLIPTokenizerFast"),
}
"""Library and classes that model_index.json may name; what is used does not follow it."""

_STEMS: Mapping[str, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""How the libraries name their weight files."""

_LoadedT = TypeVar(
    "_LoadedT", UNet2DConditionModel, AutoencoderKL, CLIPTextModel, CLIPTextModelWithProjection
)


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """A loaded SDXL: in evaluation mode, without gradients.

    Attributes:
        unet: Denoises.
        vae: Decodes latents. It is in single precision where its configuration says that
            half will overflow (`force_upcast`), else in the others' type.
        text_encoder: CLIP ViT-L.
        text_encoder_2: OpenCLIP ViT-bigG; its pooled output conditions too.
        tokenizer: Of the first encoder.
        tokenizer_2: Of the second; it pads differently.
        scheduler_config: scheduler_config.json: the noise schedule of the training.
        force_zeros_for_empty_prompt: An absent negative prompt is all zeros.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    scheduler_config: dict[str, object]
    force_zeros_for_empty_prompt: bool


def load_components(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    variant: str | None = None,
    vae: Path | None = None,
) -> Components:
    """Loads a complete SDXL folder.

    Args:
        folder: Has model_index.json and a folder for each component.
        dtype: Of the UNet, the text encoders and, unless it overflows, the autoencoder.
        device: Where they go.
        variant: Which weight files to read, e.g. ``"fp16"``; ``None`` takes those without.
        vae: Folder of another autoencoder, e.g. of `madebyollin/sdxl-vae-fp16-fix`; its
            files lie in it directly, with or without the variant.

    Raises:
        WeightsError: A file is missing, is a pickle, is damaged, or does not fit the
            configuration; one line that names it. `reason` is ``MISSING_FILE`` or
            ``BAD_FILE``.
    """
    index = read_json(folder / "model_index.json")
    _check_index(folder / "model_index.json", index)
    files = {
        name: find_weights(folder / name, stem, variant)
        for name, stem in _STEMS.items()
        if name != "vae" or vae is None
    }
    if vae is not None:  # its author seldom repeats it in every precision
        files["vae"] = find_weights(vae, _STEMS["vae"], variant, or_plain=True)
    reader = _Reader(files, dtype, device)
    components = Components(  # the small files first: what is wrong there is told at once
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        tokenizer=_tokenizer(folder / "tokenizer"),
        tokenizer_2=_tokenizer(folder / "tokenizer_2"),
        unet=reader.read("unet", UNet2DConditionModel),
        vae=reader.read("vae", AutoencoderKL),
        text_encoder=reader.read("text_encoder", CLIPTextModel),
        text_encoder_2=reader.read("text_encoder_2", CLIPTextModelWithProjection),
    )
    _check_fit(folder, components)
    return components


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one component after the other, from weight files whose heads were read."""

    files: Mapping[str, Weights]
    dtype: torch.dtype
    device: torch.device

    def read(self, name: str, model_class: type[_LoadedT]) -> _LoadedT:
        path = self.files[name].path
        config = read_json(path.parent / "config.json")
        overflows = name == "vae" and config.get("force_upcast", True)
        library: Any = model_class
        try:
            with without_bars():
                model, found = library.from_pretrained(
                    path.parent,
                    dtype=torch.float32 if overflows else self.dtype,
                    variant=self.files[name].variant,
                    use_safetensors=True,
                    local_files_only=True,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise bad(path, f"can't be loaded with its config.json ({error})") from error
        for tensor, there, wanted in sorted(found["mismatched_keys"]):
            raise bad(path, f"{tensor} is {tuple(there)}, config.json says {tuple(wanted)}")
        for tensor in sorted(found["missing_keys"]):
            raise bad(path, f"{tensor} is missing")
        loaded: _LoadedT = model.to(self.device).eval().requires_grad_(False)
        return loaded


def _tokenizer(folder: Path) -> CLIPTokenizer:
    needed = ["tokenizer_config.json"]
    if not (folder / "tokenizer.json").is_file():
        needed += ["vocab.json", "merges.txt"]
    for file in needed:
        if not (folder / file).is_file():
            raise bad(folder / file, "is missing", reason="MISSING_FILE")
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise bad(folder, f"is no CLIP tokenizer ({error})") from error
    return tokenizer


def _check_index(path: Path, index: Mapping[str, object]) -> None:
    pipeline = index.get("_class_name")
    if pipeline != "StableDiffusionXLPipeline":
        raise bad(path, f"is of {pipeline}, not of StableDiffusionXLPipeline")
    for name, (library, *classes) in _CLASSES.items():
        named = index.get(name)
        if named not in [[library, known] for known in classes]:
            raise bad(path, f"{name} is {named}, not {classes[0]} of {library}")


def _check_fit(folder: Path, components: Components) -> None:
    """Refuses components that are each whole, but not one model's."""
    unet: Any = components.unet.config
    first: Any = components.text_encoder.config
    second: Any = components.text_encoder_2.config
    widths = first.hidden_size + second.hidden_size
    conditioning = 6 * (unet.addition_time_embed_dim or 0) + second.projection_dim
    for name, there, wanted in (
        ("addition_embed_type", unet.addition_embed_type, "text_time"),
        ("cross_attention_dim", unet.cross_attention_dim, widths),
        (
            "projection_class_embeddings_input_dim",
            unet.projection_class_embeddings_input_dim,
            conditioning,
        ),
        ("in_channels", unet.in_channels, components.vae.config.latent_channels),
        ("out_channels", unet.out_channels, components.vae.config.latent_channels),
        ("time_cond_proj_dim", unet.time_cond_proj_dim, None),
    ):
        if there != wanted:
            raise bad(folder / "unet" / "config.json", f"{name} is {there}, SDXL needs {wanted}")
