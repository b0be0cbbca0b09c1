"""Pictures become latents and back as in diffusers' pipelines, whatever memory allows."""

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image
from starter_sdxl import CPU

from atrium_diffusion.domain import Pixels
from atrium_diffusion.sdxl.memory import MemoryModel
from atrium_diffusion.sdxl.model import SdxlModel
from atrium_diffusion.sdxl.vae import VaeCodec
from atrium_diffusion.testing.shapes import render, seeded, several


def picture(side: int = 128) -> Pixels:
    rows, columns = np.mgrid[0:side, 0:side] / side
    return np.stack([rows * 255, columns * 255, (rows > columns) * 200], axis=-1).astype(np.uint8)


def random_vae(**options: object) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        layers_per_block=1,
        mid_block_add_attention=False,
        latent_channels=4,
        sample_size=256,
        scaling_factor=0.13025,
        **options,
    ).eval()


def codec(
    vae: AutoencoderKL, *, dtype: torch.dtype = torch.float32, budget_mib: int = 4096
) -> VaeCodec:
    memory = MemoryModel(device=CPU, step_bytes_per_pixel=0, decode_bytes_per_pixel=6)
    return VaeCodec(vae, dtype=dtype, memory=memory, budget_mib=budget_mib)


def test_encodes_as_the_img2img_pipeline(
    starter_model: SdxlModel, starter_pipe: StableDiffusionXLPipeline
) -> None:
    pipe = StableDiffusionXLImg2ImgPipeline(**starter_pipe.components)
    image = pipe.image_processor.preprocess(Image.fromarray(picture()))
    theirs = pipe.prepare_latents(
        image, None, 1, 1, torch.float32, CPU, torch.Generator().manual_seed(7), add_noise=False
    )
    ours = starter_model.encode_image(picture(), torch.Generator().manual_seed(7))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_decodes_as_the_pipeline_to_the_same_bytes(
    starter_model: SdxlModel, starter_pipe: StableDiffusionXLPipeline
) -> None:
    latents = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3))
    theirs = starter_pipe(
        "a star", num_inference_steps=1, guidance_scale=1.0, latents=latents, output_type="latent"
    ).images
    whole = starter_pipe(
        "a star", num_inference_steps=1, guidance_scale=1.0, latents=latents, output_type="np"
    ).images
    ours = starter_model.decode(theirs)
    assert len(ours) == 1
    assert np.array_equal(ours[0], (whole[0] * 255).round().astype(np.uint8))


def test_an_autoencoder_without_statistics_is_scaled_only() -> None:
    vae = random_vae()
    latents = codec(vae).encode(picture(64), torch.Generator().manual_seed(1))
    image = torch.from_numpy(picture(64)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        drawn = vae.encode(image).latent_dist.sample(torch.Generator().manual_seed(1))
    assert torch.allclose(latents, drawn * 0.13025, atol=1e-6)
    assert codec(vae).scale == 8


def test_slices_are_the_same_pictures_and_tiles_nearly() -> None:
    vae = random_vae()
    # By the estimate above a picture takes 1 MiB: three fit, two, one; then a quarter of one.
    latents = torch.randn((3, 4, 64, 40), generator=torch.Generator().manual_seed(2))
    together = codec(vae, budget_mib=3).decode(latents)
    for budget_mib in (2, 1):
        sliced = codec(vae, budget_mib=budget_mib).decode(latents)
        for ours, theirs in zip(sliced, together, strict=True):
            assert np.abs(ours.astype(int) - theirs).max() <= 1
    tiled = codec(vae, budget_mib=0).decode(latents)
    for ours, theirs in zip(tiled, together, strict=True):
        assert ours.shape == (512, 320, 3)
        assert 0 < np.abs(ours.astype(int) - theirs).mean() < 8
    assert not vae.use_tiling


def test_an_autoencoder_may_be_wider_than_its_latents() -> None:
    widened = codec(random_vae(), dtype=torch.bfloat16)
    latents = widened.encode(picture(64), torch.Generator().manual_seed(1))
    assert latents.dtype == torch.bfloat16
    assert widened.decode(latents)[0].shape == (64, 64, 3)


def test_a_preview_shows_what_the_decoder_will(starter_model: SdxlModel) -> None:
    scenes = (
        several(1, "red", "circle"),
        several(2, "blue", "square"),
        several(1, "black", "star"),
    )
    for index, scene in enumerate(scenes):
        shown = np.asarray(render(scene, seeded(index)))
        latents = starter_model.encode_image(shown, torch.Generator().manual_seed(index))
        preview = starter_model.preview(latents, 16)
        assert preview.shape == (16, 16, 3)
        small = np.asarray(Image.fromarray(shown).resize((16, 16), Image.Resampling.BOX))
        assert np.abs(preview.astype(int) - small).mean() < 20


def test_a_preview_is_scaled_to_the_longest_side(starter_model: SdxlModel) -> None:
    latents = torch.zeros(1, 4, 32, 16)
    assert starter_model.preview(latents, 128).shape == (128, 64, 3)
    assert starter_model.preview(latents, 8).shape == (8, 4, 3)


def test_a_preview_of_noise_on_top_is_not_lost(starter_model: SdxlModel) -> None:
    shown = np.asarray(render(several(1, "red", "circle"), seeded(1)))
    latents = starter_model.encode_image(shown, torch.Generator().manual_seed(1))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    clear = starter_model.preview(latents, 16).astype(float)
    hidden = starter_model.preview(latents + 2.0 * noise, 16).astype(float)
    assert np.corrcoef(clear.ravel(), hidden.ravel())[0, 1] > 0.3
