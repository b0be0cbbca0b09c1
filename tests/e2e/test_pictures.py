"""Pictures by a real model through both doors: right, fair, seen early, billed, refused by name.

The starter model draws coloured shapes, and pixel statistics tell whether it drew what was
asked for.
"""

import asyncio
import base64
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from openai import APIStatusError, AsyncOpenAI
from PIL import Image

from atrium.common.v1 import image_pb2
from atrium.img2img.v1 import img2img_pb2
from atrium.text2image.v1 import text2image_pb2
from atrium_diffusion.testing.judge import judge, read, silhouette_iou
from atrium_diffusion.testing.shapes import (
    PLAIN_SCENES,
    SIDE,
    caption,
    recoloured,
    render,
    seeded,
    several,
)
from tests.kit.pictures import edit, generate, most_levels_apart, pixels, png
from tests.kit.suite import ROOT, Suite

MODEL, EDITOR = "sdxl-shapes-128", "sdxl-shapes-128-edit"
STEPS = 12
"""The starter model's default."""
MEGAPIXEL = SIDE * SIDE / 1e6
MAX_BATCH = 8
"""Of the starter model: pictures that share a step."""

pytestmark = pytest.mark.model


async def billed(rest: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The tenant's records in the ledger, newest first."""
    answer = await rest.get("/api/usage/events")
    answer.raise_for_status()
    return list(answer.json()["events"])


def denoising(steps: int, seed: int) -> image_pb2.DenoisingParams:
    return image_pb2.DenoisingParams(steps=steps, seed=seed)


async def test_sixty_plain_prompts_are_drawn_right_and_billed(
    suite: Suite, plain_pictures: Mapping[str, bytes], plain_pictures_key: str
) -> None:
    drawn = {prompt: pixels(file) for prompt, file in plain_pictures.items()}
    assert len(drawn) == 60
    assert {picture.shape for picture in drawn.values()} == {(SIDE, SIDE, 3)}
    wrong = [prompt for prompt in drawn if not judge(drawn[prompt], PLAIN_SCENES[prompt]).right]
    assert len(wrong) <= 3, wrong

    bearer = {"Authorization": f"Bearer {plain_pictures_key}"}
    async with httpx.AsyncClient(base_url=suite.url, headers=bearer) as painter:
        sums = (await painter.get("/api/usage")).json()["totals"]
    assert (sums["requests"], sums["images"]) == (60, 60)
    assert sums["megapixel_steps"] == pytest.approx(60 * STEPS * MEGAPIXEL, abs=60 * 0.001)


async def test_both_doors_draw_the_same_on_the_same_bill(
    suite: Suite, key: str, rest: httpx.AsyncClient
) -> None:
    asked = {"model": MODEL, "prompt": "two blue squares", "n": 2, "seed": 7}
    answer = await rest.post("/api/text-to-image", json=asked)
    told = answer.json()
    by_rest = [pixels(base64.b64decode(each["image"])) for each in told["pictures"]]
    assert [each["record"]["seed"] for each in told["pictures"]] == [7, 8]

    request = text2image_pb2.GenerateImageRequest(
        model=MODEL, prompt=asked["prompt"], n=2, denoising=image_pb2.DenoisingParams(seed=7)
    )
    async with grpc.aio.insecure_channel(suite.target("text2image")) as channel:
        drawn = await generate(channel, key, request)
    assert drawn.kinds[0] == "info"
    assert drawn.info.steps == STEPS
    assert Counter(drawn.kinds)["progress"] == 2 * STEPS
    for index, picture in enumerate(by_rest):
        assert most_levels_apart(picture, pixels(drawn.files[index])) <= 1
        assert judge(picture, several(2, "blue", "square")).right

    first, second = await billed(rest)
    assert first["totals"]["images"] == second["totals"]["images"] == drawn.usage.images == 2
    spent = drawn.usage.millimegapixel_steps / 1000
    assert spent == pytest.approx(2 * STEPS * MEGAPIXEL, abs=0.001)
    assert first["totals"]["megapixel_steps"] == second["totals"]["megapixel_steps"] == spent
    assert told["usage"]["megapixel_steps"] == spent


async def test_an_edit_keeps_or_reshapes_by_its_strength(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    chance = seeded(3)
    sources = [several(1, colour, "circle") for colour in ("red", "blue", "purple", "orange")]
    files = [png(render(scene, seeded(number))) for number, scene in enumerate(sources)]

    async def edited(file: bytes, prompt: str, strength: float) -> Any:
        answer = await client.images.edit(
            model=EDITOR,
            image=("source.png", file),
            prompt=prompt,
            extra_body={"strength": strength, "steps": 20, "seed": 5},
        )
        assert answer.data is not None
        return pixels(base64.b64decode(answer.data[0].b64_json or ""))

    others = [recoloured(scene, chance) for scene in sources]
    kept = await asyncio.gather(
        *(edited(file, caption(to), 0.3) for file, to in zip(files, others, strict=True))
    )
    for file, picture in zip(files, kept, strict=True):
        assert silhouette_iou(pixels(file), picture) >= 0.8
        assert np.abs(pixels(file).astype(int) - picture).max() > 30

    asked = several(1, "green", "star")
    reshaped = await asyncio.gather(*(edited(file, caption(asked), 0.7) for file in files))
    assert sum(read(picture).largest == asked.figures[0] for picture in reshaped) >= 3

    taken = sorted(event["totals"]["megapixel_steps"] for event in await billed(rest))
    steps = [round(each / MEGAPIXEL) for each in taken]
    assert steps == [6] * len(files) + [14] * len(files)


async def test_a_masked_edit_leaves_what_is_outside_as_it_was(
    suite: Suite, key: str, client: AsyncOpenAI
) -> None:
    source = png(render(several(2, "red", "circle"), seeded(1)))
    opacity = np.full((SIDE, SIDE), 255, np.uint8)
    opacity[:, SIDE // 2 :] = 0
    holes = Image.fromarray(pixels(source)).convert("RGBA")
    holes.putalpha(Image.fromarray(opacity))
    answer = await client.images.edit(
        model=EDITOR,
        image=("source.png", source),
        mask=("mask.png", png(holes)),
        prompt="two blue squares",
        extra_body={"strength": 0.9, "seed": 2},
    )
    assert answer.data is not None
    picture = pixels(base64.b64decode(answer.data[0].b64_json or ""))
    before, half = pixels(source), SIDE // 2
    assert np.array_equal(picture[:, :half], before[:, :half])
    assert most_levels_apart(picture[:, half:], before[:, half:]) > 100

    # The service's own masks are white where the picture is drawn anew.
    config = img2img_pb2.EditConfig(
        model=EDITOR, prompt="two blue squares", strength=0.9, has_mask=True
    )
    config.denoising.seed = 2
    white = png(Image.fromarray(255 - opacity))
    async with grpc.aio.insecure_channel(suite.target("img2img")) as channel:
        drawn = await edit(channel, key, config, [source], mask=white)
    assert most_levels_apart(pixels(drawn.files[0]), picture) <= 1


async def test_a_draft_does_not_wait_for_eight_long_jobs(suite: Suite, key: str) -> None:
    """Its first step is in the tick after the one that ran when it was admitted."""
    long_steps, taken = 50, [0] * 8
    at_admission: list[int] = []
    at_first_step: list[int] = []
    running = asyncio.Event()

    def long_step(job: int, step: int) -> None:
        taken[job] = step
        if min(taken) >= 2:
            running.set()

    def draft_step(_: int) -> None:
        if not at_first_step:
            at_first_step.extend(taken)

    async with grpc.aio.insecure_channel(suite.target("text2image")) as channel:

        async def long_job(job: int) -> None:
            request = text2image_pb2.GenerateImageRequest(
                model=MODEL, prompt="a red circle", denoising=denoising(long_steps, job)
            )
            await generate(channel, key, request, on_step=lambda step: long_step(job, step))

        jobs = asyncio.gather(*map(long_job, range(8)))
        await asyncio.wait_for(running.wait(), 60)
        draft = text2image_pb2.GenerateImageRequest(
            model=MODEL, prompt="a green star", denoising=denoising(4, 1)
        )
        await generate(
            channel,
            key,
            draft,
            on_info=lambda: at_admission.extend(taken),
            on_step=draft_step,
        )
        assert max(taken) < long_steps
        jobs.cancel()
        await asyncio.gather(jobs, return_exceptions=True)
    # One step was under way at admission; the next one is the draft's, too.
    moved = [after - before for before, after in zip(at_admission, at_first_step, strict=True)]
    assert max(moved) <= 2, moved


async def test_a_flood_does_not_hold_up_another_tenant(suite: Suite, key: str) -> None:
    suite.atrium("tenant", "create", "flood", "--unlimited", "--exist-ok")
    other = str(json.loads(suite.atrium("key", "create", "flood", "--json"))["key"])
    flooded = 0
    at_admission, at_first_step = [], []

    def flood_step(_: int) -> None:
        nonlocal flooded
        flooded += 1

    async with grpc.aio.insecure_channel(suite.target("text2image")) as channel:

        async def flood_job(seed: int) -> None:
            request = text2image_pb2.GenerateImageRequest(
                model=MODEL, prompt="a red circle", denoising=denoising(8, seed)
            )
            await generate(channel, other, request, on_step=flood_step)

        jobs = asyncio.gather(*map(flood_job, range(100)))
        async with asyncio.timeout(60):
            while flooded < MAX_BATCH:  # noqa: ASYNC110 - counted by callbacks
                await asyncio.sleep(0.01)
        # Of another size, so that it can't share a step with them.
        mine = text2image_pb2.GenerateImageRequest(
            model=MODEL, prompt="a blue star", width=64, height=64, denoising=denoising(20, 1)
        )
        await generate(
            channel,
            key,
            mine,
            on_info=lambda: at_admission.append(flooded),
            on_step=lambda _: at_first_step.append(flooded),
        )
        jobs.cancel()
        await asyncio.gather(jobs, return_exceptions=True)
    # Two ticks, besides the one that was under way.
    assert at_first_step[0] - at_admission[0] <= 3 * MAX_BATCH


async def test_early_views_come_before_the_picture(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    kinds, views, final = [], [], None
    stream = await client.images.generate(
        model=MODEL,
        prompt="a red circle",
        partial_images=2,
        stream=True,
        extra_body={"seed": 3},
    )
    async for event in stream:
        kinds.append(event.type)
        picture = pixels(base64.b64decode(event.b64_json))
        if event.type == "image_generation.completed":
            final = picture
        else:
            views.append(picture)
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert final is not None
    assert judge(final, several(1, "red", "circle")).right
    # The projection knows the colours, not the edges.
    assert read(views[-1]).background == "white"

    seen: list[tuple[str, dict[str, Any]]] = []
    asked = {"model": MODEL, "prompt": "a red circle", "steps": 8, "preview_interval": 3}
    async with rest.stream("POST", "/api/text-to-image?stream=true", json=asked) as answer:
        kind = ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                seen.append((kind, json.loads(value)))
    order = [kind for kind, _ in seen]
    counts = Counter(order)
    assert (order[0], order[-1]) == ("info", "done")
    assert (counts["progress"], counts["picture"]) == (8, 1)
    assert [each["step"] for kind, each in seen if kind == "progress"] == list(range(1, 9))
    assert [each["step"] for kind, each in seen if kind == "preview"] == [3, 6]


async def test_whoever_leaves_pays_for_the_steps_that_were_taken(
    suite: Suite, key: str, rest: httpx.AsyncClient
) -> None:
    asked = {"model": MODEL, "prompt": "a red circle", "steps": 150}
    seen = 0
    async with rest.stream("POST", "/api/text-to-image?stream=true", json=asked) as answer:
        async for line in answer.aiter_lines():
            seen += line.startswith("event: progress")
            if seen == 5:
                break
    for _ in range(200):
        if events := await billed(rest):
            break
        await asyncio.sleep(0.05)
    (event,) = events
    assert event["outcome"] == "cancelled"
    assert event["totals"]["images"] == 0
    taken = event["totals"]["megapixel_steps"] / MEGAPIXEL
    assert 5 <= round(taken) < 75


GOOD = {"model": MODEL, "prompt": "a red circle"}


@pytest.mark.parametrize(
    ("path", "change", "status", "field"),
    [
        ("/v1/images/generations", {"prompt": ""}, 400, "prompt"),
        ("/v1/images/generations", {"prompt": "word " * 700}, 400, "prompt"),
        ("/v1/images/generations", {"n": 1000}, 400, "n"),
        ("/v1/images/generations", {"size": "1000000x8"}, 400, "size"),
        ("/v1/images/generations", {"model": "dall-e-9"}, 404, "model"),
        ("/api/text-to-image", {"steps": -1}, 400, "steps"),
        ("/api/text-to-image", {"width": 1_000_000}, 400, "width"),
        ("/api/text-to-image", {"width": 100}, 400, "width"),
        ("/api/text-to-image", {"loras": [{"id": "none"}]}, 404, "loras"),
        ("/api/text-to-image", {"colour": "red"}, 400, "colour"),
    ],
)
async def test_bad_input_is_named_and_costs_nothing(
    rest: httpx.AsyncClient, path: str, change: dict[str, Any], status: int, field: str
) -> None:
    answer = await rest.post(path, json=GOOD | change)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert (error["error"]["param"] if "error" in error else error["field"]) == field
    assert "Traceback" not in answer.text
    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["images"], sums["megapixel_steps"], sums["cost"]) == (0, 0, "0")
    assert (await rest.get("/health")).json()["services"]["text2image"]["status"] == "ready"


@pytest.mark.parametrize(
    "content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n cut off"]
)
async def test_what_is_no_picture_is_refused_before_any_work(
    client: AsyncOpenAI, rest: httpx.AsyncClient, content: bytes
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await client.images.edit(model=EDITOR, image=("a.png", content), prompt="a red circle")
    assert refused.value.status_code == 400
    assert refused.value.param == "image"
    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["images"], sums["megapixel_steps"], sums["cost"]) == (0, 0, "0")
    assert (await rest.get("/health")).json()["services"]["img2img"]["status"] == "ready"


async def test_the_example_keeps_views_and_picture(suite: Suite, key: str, tmp_path: Path) -> None:
    out = tmp_path / "stars.png"
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "examples/draw.py", "three green stars"),
        *("--url", suite.url, "--out", str(out), "--views", "2", "--seed", "1"),
        cwd=ROOT,
        env={**os.environ, "ATRIUM_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    printed = (await program.communicate())[0].decode()
    assert program.returncode == 0
    files = [line.partition(" after ")[0] for line in printed.splitlines()]
    assert [Path(file).name for file in files] == ["stars-1.jpg", "stars-2.jpg", "stars.png"]
    assert judge(pixels(out.read_bytes()), several(3, "green", "star")).right
