"""Requests with different adapters at once: each gets the picture that diffusers' pipeline gives.

The checkpoint has SDXL's real layout at reduced width; its weights are random.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from atrium_common.catalogue import AdapterEntry, ModelEntry
from atrium_common.weights import WeightsError, WeightStore
from atrium_diffusion.domain import AppliedLora, Denoising, LoraUse, PictureJob, PictureMade, Pixels
from atrium_diffusion.engines.diffusers import DiffusersEngine
from atrium_diffusion.sdxl.lora_files import LoraFiles
from atrium_diffusion.testing import tiny_lora

pytestmark = pytest.mark.model

SETS: list[dict[str, float]] = [{}, {"style": 0.7}, {"words": 1.0}, {"style": 0.4, "words": -0.5}]
PROMPT = "a red circle"


@pytest.fixture(scope="module")
def loras(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    tiny_lora.make(root / "style" / "style.safetensors", tiny_sdxl, seed=1)
    tiny_lora.make(root / "words" / "words.safetensors", tiny_sdxl, seed=2, text=True)
    (root / "broken").mkdir()
    (root / "broken" / "broken.safetensors").write_bytes(b"no tensors")
    return root


def adapters(loras: Path) -> list[AdapterEntry]:
    return [
        AdapterEntry.model_validate(
            {
                "id": folder.name,
                "kind": "lora",
                "models": ["tiny"],
                "sources": [{"kind": "folder", "path": folder}],
                "digest": "0" * 64 if folder.name == "broken" else "",
            }
        )
        for folder in sorted(loras.iterdir())
    ]


@pytest.fixture(scope="module")
async def engine(
    tiny_sdxl: Path, loras: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DiffusersEngine]:
    model = ModelEntry.model_validate(
        {
            "id": "tiny",
            "service": "text2image",
            "capabilities": ["text-to-image"],
            "engine": "diffusers",
            "sources": [{"kind": "folder", "path": tiny_sdxl}],
            "options": {"native_width": 128, "native_height": 128, "min_side": 64, "threads": 1},
        }
    )
    store = WeightStore(tmp_path_factory.mktemp("weights"))
    made = DiffusersEngine([model], store=store, adapters=adapters(loras))
    await made.load()
    yield made
    await made.close()


async def draw(engine: DiffusersEngine, **scales: float) -> Pixels:
    loras = tuple(LoraUse(id=name, scale=scale) for name, scale in scales.items())
    denoising = Denoising(steps=3, guidance_scale=4.0, seed=7, loras=loras)
    job = PictureJob(model="tiny", prompt=PROMPT, denoising=denoising)
    async with aclosing(engine.draw(engine.plan(job))) as events:
        async for event in events:
            if isinstance(event, PictureMade):
                return event.pixels
    raise AssertionError("no picture")


def reference(checkpoint: Path, loras: Path) -> list[Pixels]:
    pipe = StableDiffusionXLPipeline.from_pretrained(
        checkpoint, dtype=torch.float32, add_watermarker=False, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for scales in SETS:
        for name in scales:
            if name not in pipe.get_list_adapters().get("unet", []):
                file = f"{name}.safetensors"
                pipe.load_lora_weights(loras / name, weight_name=file, adapter_name=name)
        if scales:
            pipe.set_adapters(list(scales), list(scales.values()))
        made = pipe(
            PROMPT,
            num_inference_steps=3,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(7),
            output_type="np",
        )
        pictures.append((made.images[0] * 255).round().astype(np.uint8))
    return pictures


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
async def test_every_request_is_drawn_with_its_own_adapters(
    engine: DiffusersEngine, tiny_sdxl: Path, loras: Path
) -> None:
    together = await asyncio.gather(*(draw(engine, **scales) for scales in SETS * 2))
    wanted = await asyncio.to_thread(reference, tiny_sdxl, loras)
    for picture, right in zip(together, wanted * 2, strict=True):
        assert np.abs(picture.astype(int) - right.astype(int)).max() <= 1
    for number, picture in enumerate(wanted[1:]):
        assert np.abs(picture.astype(int) - wanted[number].astype(int)).max() > 8


async def test_an_adapter_that_can_not_be_read_fails_its_own_request_alone(
    engine: DiffusersEngine,
) -> None:
    before = await draw(engine, style=0.7)
    beside, broken = await asyncio.gather(
        draw(engine, style=0.7), draw(engine, broken=1.0), return_exceptions=True
    )
    assert isinstance(broken, WeightsError)
    assert "broken.safetensors" in broken.message
    assert isinstance(beside, np.ndarray)
    assert np.abs(beside.astype(int) - before.astype(int)).max() <= 1


async def test_other_pictures_go_on_while_an_adapter_is_read(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await draw(engine, words=0.5)
    await engine.unload_model("tiny")
    await engine.load_model("tiny")
    reading, go_on = threading.Event(), threading.Event()
    checked = LoraFiles.checked

    def slowly(files: LoraFiles, lora: AppliedLora) -> Path:
        reading.set()
        assert go_on.wait(60)
        return checked(files, lora)

    monkeypatch.setattr(LoraFiles, "checked", slowly)
    with_words = asyncio.create_task(draw(engine, words=0.5))
    try:
        assert await asyncio.to_thread(reading.wait, 60)
        async with asyncio.timeout(30):
            await draw(engine)
        assert not with_words.done()
    finally:
        go_on.set()
    picture = await with_words
    assert np.abs(picture.astype(int) - wanted.astype(int)).max() <= 1
