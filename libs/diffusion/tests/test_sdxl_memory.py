"""The promises of the memory model: it bounds what the work takes, and not by far."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from atrium_diffusion.sdxl.loading import Components, load_components
from atrium_diffusion.sdxl.memory import SLACK, MemoryModel, free_bytes, host_free_bytes, peak_bytes
from atrium_diffusion.testing import sdxl_configs
from atrium_diffusion.testing.sdxl_configs import FULL

CPU = torch.device("cpu")
MIB = 1 << 20


@pytest.fixture(scope="module")
def components(tiny_sdxl: Path) -> Components:
    torch.set_num_threads(1)
    return load_components(tiny_sdxl, dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module")
def model(components: Components) -> MemoryModel:
    return MemoryModel.of(components.unet, components.vae)


def step(unet: UNet2DConditionModel, side: int, rows: int) -> int:
    """Counts the tensors of a real step."""
    inputs = [
        torch.zeros(rows, 4, side // 8, side // 8),
        torch.zeros(rows),
        torch.zeros(rows, 77, unet.config.cross_attention_dim),
    ]
    added = {"text_embeds": torch.zeros(rows, 48), "time_ids": torch.zeros(rows, 6)}
    return peak_bytes(
        lambda: unet(*inputs, added_cond_kwargs=added, return_dict=False),
        existing=[*unet.parameters(), *inputs, *added.values()],
    )


@pytest.mark.parametrize(("side", "rows"), [(256, 1), (256, 4), (512, 1), (384, 3)])
def test_the_tensors_of_a_real_step_are_those_that_were_counted(
    components: Components, model: MemoryModel, side: int, rows: int
) -> None:
    counted = model.step_bytes(side * side, rows) / SLACK["cpu"]
    assert step(components.unet, side, rows) == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(("side", "pictures"), [(128, 3), (256, 1)])
def test_the_tensors_of_a_real_decoding_are_those_that_were_counted(
    components: Components, model: MemoryModel, side: int, pictures: int
) -> None:
    latents = torch.zeros(pictures, 4, side // 8, side // 8)
    real = peak_bytes(
        lambda: components.vae.decode(latents, return_dict=False),
        existing=[*components.vae.parameters(), latents],
    )
    counted = model.decode_bytes(side * side, pictures) / SLACK["cpu"]
    assert real == pytest.approx(counted, rel=0.1)


def test_a_batch_is_bounded_by_the_budget(model: MemoryModel) -> None:
    pixels = 512 * 512
    budget = model.step_bytes(pixels, 10)
    assert model.pictures_that_fit(pixels=pixels, guided=True, budget=budget) == 5
    assert model.pictures_that_fit(pixels=pixels, guided=False, budget=budget) == 10
    assert model.pictures_that_fit(pixels=4 * pixels, guided=True, budget=budget) == 1
    assert model.pictures_that_fit(pixels=pixels, guided=True, budget=0) == 1, "one is tried"
    assert model.budget(100) == 100 * MIB
    assert 0 < model.budget() <= free_bytes(CPU)


def test_a_container_leaves_less_than_the_host_and_caches_are_free(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  16384 kB\nMemFree:  1024 kB\nMemAvailable:  8192 kB\n")
    assert host_free_bytes(meminfo=meminfo, cgroup=tmp_path) == 8 * MIB
    (tmp_path / "memory.current").write_text(f"{5 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * MIB}\ninactive_file {3 * MIB}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert host_free_bytes(meminfo=meminfo, cgroup=tmp_path) == 8 * MIB
    (tmp_path / "memory.max").write_text(f"{6 * MIB}\n")
    assert host_free_bytes(meminfo=meminfo, cgroup=tmp_path) == 4 * MIB


def test_half_precision_takes_half(components: Components, model: MemoryModel) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(components.unet.config).half()
    half = MemoryModel.of(unet, components.vae)
    assert half.step_bytes_per_pixel == pytest.approx(model.step_bytes_per_pixel / 2, rel=0.02)
    assert half.decode_bytes_per_pixel == model.decode_bytes_per_pixel


def test_sdxl_itself_is_counted_without_its_weights() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sdxl_configs.unet(FULL)).half()
        vae = AutoencoderKL.from_config(sdxl_configs.vae(FULL))
    model = MemoryModel.of(unet, vae)
    picture = 1024 * 1024
    slack = SLACK["cpu"]
    # Its last level joins 960 channels of 128 x 128 and normalises them, in half precision.
    assert 2 * 960 * 128 * 128 * 2 < model.step_bytes(picture, 1) / slack < 300 * MIB
    # The decoder's last block but one hands 256 channels on at full size, in single precision.
    assert 2 * 256 * picture * 4 < model.decode_bytes(picture) / slack < 5 * 1024 * MIB
