"""What training leaves: a complete SDXL folder in half precision, and its catalogue lines."""

import hashlib
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from starter_trainer.denoiser import Painter
from starter_trainer.networks import scheduler


def save(folder: Path, *, painter: Painter, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
    """Writes what `StableDiffusionXLPipeline.from_pretrained` reads; halves the modules' types."""
    tokenizer.backend_tokenizer.no_padding()  # it would be saved as it was last used
    tokenizer.backend_tokenizer.no_truncation()
    for module in (painter, vae):
        module.half()
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=painter.first,
        text_encoder_2=painter.second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=painter.unet,
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # weights are written for their owner alone


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
