"""Loads the starter model, ours and diffusers' own, so that tests can compare them."""

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from atrium_diffusion.sdxl.loading import load_components
from atrium_diffusion.sdxl.memory import MemoryModel
from atrium_diffusion.sdxl.model import SdxlModel

CPU = torch.device("cpu")


def load_model(folder: Path) -> SdxlModel:
    """Loads it as the engine does, on one thread."""
    torch.set_num_threads(1)
    components = load_components(folder, dtype=torch.float32, device=CPU)
    memory = MemoryModel.of(components.unet, components.vae)
    return SdxlModel(components, device=CPU, dtype=torch.float32, memory=memory)


def load_pipeline(folder: Path) -> StableDiffusionXLPipeline:
    """Loads diffusers' pipeline of the same files."""
    torch.set_num_threads(1)
    pipe = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=torch.float32, add_watermarker=False, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
