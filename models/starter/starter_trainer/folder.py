"""What training leaves: a complete SDXL folder in half precision, and its catalogue lines."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import diffusers
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from atrium_diffusion.testing.sdxl_configs import write_json
from starter_trainer.denoiser import Painter
from starter_trainer.networks import scheduler


def save(folder: Path, *, painter: Painter, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
    """Writes what `StableDiffusionXLPipeline.from_pretrained` reads; halves the modules' types."""
    tokenizer.backend_tokenizer.no_padding()  # it would be saved as it was last used
    tokenizer.backend_tokenizer.no_truncation()
    for module in (painter, vae):
        module.half()
    parts = {
        "vae": vae,
        "text_encoder": painter.first,
        "text_encoder_2": painter.second,
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "unet": painter.unet,
        "scheduler": scheduler(),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    write_json(folder / "model_index.json", _index(parts))
    readable(folder)


def readable(folder: Path) -> None:
    """Lets everyone read a model: libraries write weights for their owner alone."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def catalogue_lines(folder: Path) -> list[str]:
    """The folder's files as they stand in the catalogue: name, digest, size."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        lines += [
            f"- name: {path.relative_to(folder).as_posix()}",
            f"  sha256: {hashlib.sha256(data).hexdigest()}",
            f"  size: {len(data)}",
        ]
    return lines


def _index(parts: Mapping[str, object]) -> dict[str, object]:
    """What names the pipeline and the class of each part, as diffusers writes it.

    Importing the pipeline to write it would import what SDXL never uses, with warnings about
    libraries that are not installed.
    """
    classes = {name: [_library(part), type(part).__name__] for name, part in parts.items()}
    absent = {name: [None, None] for name in ("feature_extractor", "image_encoder")}
    index: dict[str, object] = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        "force_zeros_for_empty_prompt": True,
        **classes,
        **absent,
    }
    return dict(sorted(index.items()))


def _library(part: object) -> str:
    return type(part).__module__.partition(".")[0]
