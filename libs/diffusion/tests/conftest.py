"""Lets test modules import their neighbours, and loads the starter model once for all."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from atrium_diffusion.sdxl.model import SdxlModel

STARTER = Path(__file__).parents[3] / "models" / "starter" / "sdxl-shapes-128"


@pytest.fixture(scope="session")
def starter_folder() -> Path:
    """The starter model's files."""
    return STARTER


@pytest.fixture(scope="session")
def starter_model() -> "SdxlModel":
    """The starter model in float32 on one thread, as the denoiser sees it."""
    from starter_sdxl import load_model

    return load_model(STARTER)


@pytest.fixture(scope="session")
def starter_pipe() -> "StableDiffusionXLPipeline":
    """The starter model in diffusers' own pipeline; copy its scheduler before changing it."""
    from starter_sdxl import load_pipeline

    return load_pipeline(STARTER)


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real layout at reduced width; copy it before changing it."""
    from atrium_diffusion.testing.tiny_sdxl import make

    return make(tmp_path_factory.mktemp("sdxl") / "tiny")
