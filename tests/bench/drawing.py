"""Pictures without Atrium around them, and with the denoiser alone: `pictures.py`'s workers.

Each runs as a process of its own and answers one JSON line for each JSON line it reads, so
that the sides of a benchmark take turns:

    python tests/bench/drawing.py pipeline|batched CATALOGUE MODELS_DIR MODEL
        {"requests": [{"at": 0.1, "prompt": "a red circle", "steps": 12, "guidance": 3.0,
                       "seed": 1}, ...]}
        -> {"seconds": 4.2, "cpu": 4.0, "calls": 96, "unet": 3.8, "latencies": [0.4, ...]}

`pipeline` is diffusers' own pipeline behind a queue: one request after the other, as most
servers do it. `batched` is the service's engine in process, which takes them as they come.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import Denoising, PictureJob

Request = dict[str, Any]
Draw = Callable[[Request], Awaitable[None]]


class Calls:
    """Counts and times the UNet's calls of this process, whoever makes them."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        forward = UNet2DConditionModel.forward

        def counted(unet: UNet2DConditionModel, *arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return forward(unet, *arguments, **options)
            finally:
                self.count += 1
                self.seconds += time.perf_counter() - began

        UNet2DConditionModel.forward = counted


async def _answer(draw: Draw, calls: Calls) -> None:
    """Serves the loads that come as lines; each request is drawn from the time it asks for."""
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        requests: Sequence[Request] = json.loads(line)["requests"]
        calls.count, calls.seconds = 0, 0.0
        cpu, began = time.process_time(), time.perf_counter()

        async def one(request: Request, began: float = began) -> float:
            await asyncio.sleep(request["at"] - (time.perf_counter() - began))
            await draw(request)
            return time.perf_counter() - began - float(request["at"])

        latencies = await asyncio.gather(*map(one, requests))
        answer = {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "calls": calls.count,
            "unet": calls.seconds,
            "latencies": latencies,
        }
        print(json.dumps(answer), flush=True)


async def _pipeline(entry: ModelEntry, store: WeightStore, calls: Calls) -> None:
    folder = store.ensure(entry)
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    turn = asyncio.Lock()

    def run(request: Request) -> None:
        pipeline(
            prompt=request["prompt"],
            num_inference_steps=request["steps"],
            guidance_scale=request["guidance"],
            generator=torch.Generator("cpu").manual_seed(request["seed"]),
            output_type="np",
        )

    async def draw(request: Request) -> None:
        async with turn:
            await asyncio.to_thread(run, request)

    await _answer(draw, calls)


async def _batched(entry: ModelEntry, store: WeightStore, calls: Calls) -> None:
    from atrium_text2image.engines import open_engines

    engine = open_engines([entry], store=store)
    await engine.load()

    async def draw(request: Request) -> None:
        denoising = Denoising(
            steps=request["steps"], guidance_scale=request["guidance"], seed=request["seed"]
        )
        job = PictureJob(model=entry.id, prompt=request["prompt"], denoising=denoising)
        async for _ in engine.draw(engine.plan(job)):
            pass

    await _answer(draw, calls)
    await engine.close()


if __name__ == "__main__":
    kind, catalogue, models_dir, model = sys.argv[1:]
    entries = Catalogue.load(Path(catalogue)).for_service("text2image")
    chosen = next(entry for entry in entries if entry.id == model)
    torch.set_num_threads(1)
    side = {"pipeline": _pipeline, "batched": _batched}[kind]
    asyncio.run(side(chosen, WeightStore(Path(models_dir)), Calls()))
