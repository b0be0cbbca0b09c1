"""Pictures and pages without Atrium around them: `seeing.py`'s workers.

Each runs as a process of its own and answers one JSON line for each JSON line it reads:

    python tests/bench/looking.py transformers|engine CATALOGUE MODELS_DIR MODEL
        {"pictures": ["/tmp/1.png", ...], "callers": 8}
        -> {"seconds": 1.2, "cpu": 1.2, "captions": ["a red circle", ...]}
    python tests/bench/looking.py tesserocr CATALOGUE MODELS_DIR MODEL
        {"pages": ["/tmp/page.png", ...], "callers": 2} -> {"seconds": 3.1, "cpu": 6.0}

`transformers` is the library's own `generate`, one picture after the other, as most servers
do it. `engine` is the service's engine in process; `callers` ask it at once, each for its
share of the pictures. `tesserocr` reads on as many threads as there are callers.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.weights import WeightStore

Look = Callable[[Path], Awaitable[str]]


async def _answer(look: Look) -> None:
    """Serves the loads that come as lines."""
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        paths, callers = [Path(each) for each in asked["pictures"]], asked["callers"]
        cpu, began = time.process_time(), time.perf_counter()

        async def caller(share: Sequence[Path]) -> list[str]:
            return [await look(path) for path in share]

        found = await asyncio.gather(*(caller(paths[at::callers]) for at in range(callers)))
        answer = {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "captions": [caption for share in found for caption in share],
        }
        print(json.dumps(answer), flush=True)


async def _transformers(entry: ModelEntry, store: WeightStore) -> None:
    import torch
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration, BlipImageProcessorPil

    torch.set_num_threads(1)
    folder = store.ensure(entry)
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = BlipImageProcessorPil.from_pretrained(folder)
    start = [model.config.image_token_index] * model.config.num_query_tokens
    start += tokenizer("")["input_ids"]
    ids = torch.tensor([start])
    turn = asyncio.Lock()

    def run(path: Path) -> str:
        with Image.open(path) as picture, torch.inference_mode():
            pixels = images(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
            made = model.generate(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=64,
                do_sample=False,
            )
        return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)).strip()

    async def look(path: Path) -> str:
        async with turn:
            return await asyncio.to_thread(run, path)

    await _answer(look)


async def _engine(entry: ModelEntry, store: WeightStore) -> None:
    from atrium_img2text.domain import DescriptionJob, DescriptionOrder
    from atrium_img2text.engines import open_engines

    engines = open_engines([entry], store=store)
    await engines.load()
    engine = engines.vision(entry.id)

    async def look(path: Path) -> str:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
        job = DescriptionJob(order=DescriptionOrder(model=entry.id), pixels=pixels)
        events = [event async for event in engine.describe(job)]
        return events[-1].captions[0].text

    await _answer(look)
    await engines.close()


def _tesserocr(entry: ModelEntry, store: WeightStore) -> None:
    import tesserocr

    folder = store.ensure(entry)
    tessdata = next(folder.rglob("eng.traineddata")).parent

    def read(paths: Sequence[str]) -> None:
        with tesserocr.PyTessBaseAPI(path=str(tessdata), psm=tesserocr.PSM.AUTO) as reader:
            for path in paths:
                with Image.open(path) as page:
                    reader.SetImage(page.convert("L"))
                reader.Recognize()
                reader.GetUTF8Text()

    print(json.dumps({"ready": True}), flush=True)
    while line := sys.stdin.readline():
        asked: dict[str, Any] = json.loads(line)
        shares = [asked["pages"][at :: asked["callers"]] for at in range(asked["callers"])]
        cpu, began = time.process_time(), time.perf_counter()
        threads = [threading.Thread(target=read, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answer = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    kind, catalogue, models_dir, model = sys.argv[1:]
    entries = Catalogue.load(Path(catalogue)).for_service("img2text")
    chosen = next(entry for entry in entries if entry.id == model)
    weights = WeightStore(Path(models_dir))
    if kind == "tesserocr":
        _tesserocr(chosen, weights)
    else:
        side = {"transformers": _transformers, "engine": _engine}[kind]
        asyncio.run(side(chosen, weights))
