"""Pictures by the suite's own endpoints: every option, and the three shapes of an answer."""

import base64
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from atrium_diffusion.domain import SchedulerKind

PROMPT = "a red circle"
DIGEST = "0123456789abcdef" * 4
"""Of the catalogue's LoRA."""


def files_of(answer):
    return [base64.b64decode(picture["image"]) for picture in answer["pictures"]]


async def test_json_with_everything_that_made_the_pictures(rest, pixels):
    async with rest.client(await rest.key("pictures-json")) as client:
        body = {"prompt": PROMPT, "n": 3, "seed": 7, "width": 80, "height": 64, "steps": 5}
        reply = await client.post("/api/text-to-image", json=body)
        used = (await client.get("/api/usage")).json()["totals"]
    assert reply.status_code == 200
    assert int(reply.headers["content-length"]) == len(reply.content)
    answer = reply.json()
    assert answer["model"] == "fake-pictures"
    for index, (told, file) in enumerate(zip(answer["pictures"], files_of(answer), strict=True)):
        assert (told["index"], told["format"], told["withheld"]) == (index, "png", None)
        assert told["content_type"] == "image/png"
        assert (told["size"], told["sha256"]) == (len(file), hashlib.sha256(file).hexdigest())
        assert pixels(file).shape == (64, 80, 3)
        record = told["record"]
        assert (record["seed"], record["steps"]) == (7 + index, 5)
        assert (record["prompt"], record["engine"]) == (PROMPT, "fake 1")
        assert (record["scheduler"], record["guidance_scale"]) == ("euler", 5.0)
        assert record["unusual_size"] is True
    assert len({file for file in files_of(answer)}) == 3
    usage = answer["usage"]
    assert (usage["images"], usage["engine"]) == (3, "fake")
    assert usage["megapixel_steps"] == pytest.approx(3 * 5 * 80 * 64 / 1e6, abs=0.001)
    (event,) = await rest.events("pictures-json")
    assert (event.id, event.outcome) == (answer["id"], "completed")
    assert event.capability == "text-to-image"
    assert event.method == "/atrium.text2image.v1.TextToImageService/GenerateImage"
    assert event.reserved == {"images": 3, "millimegapixel_steps": 77}
    assert (used["images"], used["megapixel_steps"]) == (3, usage["megapixel_steps"])
    assert used["inference_time"] == pytest.approx(usage["inference_time"], abs=0.001)
    # 2 a picture and 1 a megapixel-step, by the catalogue.
    assert float(used["cost"]) == pytest.approx(6 + usage["megapixel_steps"])


async def test_every_option_of_a_drawing_arrives(rest):
    async with rest.client(await rest.key("pictures-options")) as client:
        body = {
            "prompt": PROMPT,
            "negative_prompt": "blue",
            "model": "dall-e-3",
            "width": 72,
            "height": 48,
            "n": 2,
            "seed": 2**63 - 2,
            "steps": 6,
            "guidance_scale": 2.5,
            "scheduler": "dpmpp_2m_karras",
            "loras": [{"id": "fake-lora", "scale": 0.5}],
            "deterministic": True,
            "format": "png",
            "embed_record": True,
            "priority": 2,
            "truncate_prompt": True,
        }
        reply = await client.post("/api/text-to-image", json=body)
    assert reply.status_code == 200, reply.text
    job = rest.drawing_engine.drawn[-1].job
    assert (job.prompt, job.negative_prompt, job.model) == (PROMPT, "blue", "fake-pictures")
    assert (job.width, job.height, job.n, job.priority) == (72, 48, 2, 2)
    assert job.truncate_prompt
    asked = job.denoising
    assert (asked.seed, asked.steps, asked.guidance_scale) == (2**63 - 2, 6, 2.5)
    assert asked.scheduler is SchedulerKind.DPMPP_2M_KARRAS
    assert asked.deterministic
    assert [(lora.id, lora.scale) for lora in asked.loras] == [("fake-lora", 0.5)]
    told = reply.json()["pictures"][1]
    assert told["record"]["loras"] == [{"id": "fake-lora", "digest": DIGEST, "scale": 0.5}]
    assert told["record"]["seed"] == 2**63 - 1
    assert told["record"]["deterministic"] is True
    with Image.open(io.BytesIO(files_of(reply.json())[1])) as image:
        assert json.loads(image.text["atrium"])["prompt"] == PROMPT


async def test_schedulers_have_the_same_names_everywhere(rest):
    async with rest.client(await rest.key("pictures-schedulers", unlimited=True)) as client:
        for kind in SchedulerKind:
            body = {"prompt": PROMPT, "scheduler": str(kind), "steps": 2}
            reply = await client.post("/api/text-to-image", json=body)
            assert reply.json()["pictures"][0]["record"]["scheduler"] == str(kind)


@pytest.mark.parametrize("shape", ["png", "jpeg", "webp"])
async def test_formats_in_json_and_as_a_file(rest, pixels, shape):
    async with rest.client(await rest.key("pictures-formats")) as client:
        body = {"prompt": PROMPT, "seed": 3, "format": shape}
        if shape != "png":
            body["quality"] = 95
        told = (await client.post("/api/text-to-image", json=body)).json()["pictures"][0]
        del body["format"]
        accept = {"accept": f"image/{shape}"}
        file = await client.post("/api/text-to-image", json=body, headers=accept)
    assert told["content_type"] == file.headers["content-type"] == f"image/{shape}"
    assert base64.b64decode(told["image"]) == file.content
    with Image.open(io.BytesIO(file.content)) as image:
        assert image.format == shape.upper()
    assert pixels(file.content).shape == (64, 64, 3)
    assert file.headers["x-atrium-seed"] == "3"
    assert file.headers["x-atrium-steps"] == "8"
    assert file.headers["x-atrium-model"] == "fake-pictures"
    assert file.headers["x-atrium-id"] == (await rest.events("pictures-formats"))[-1].id


async def test_json_unless_a_picture_is_asked_for_alone(rest):
    async with rest.client(await rest.key("pictures-accept")) as client:
        for accept in ("*/*", "application/json", "application/json, image/png", "text/html"):
            reply = await client.post(
                "/api/text-to-image", json={"prompt": PROMPT}, headers={"accept": accept}
            )
            assert reply.headers["content-type"] == "application/json"


async def test_events_step_by_step(rest, named_events, pixels):
    async with rest.client(await rest.key("pictures-events")) as client:
        body = {"prompt": PROMPT, "n": 2, "preview_interval": 3, "preview_max_side": 32, "seed": 1}
        by_query = await client.post("/api/text-to-image?stream=true", json=body)
        by_body = await client.post("/api/text-to-image", json={**body, "stream": True})
    events = named_events(by_query.text)
    names = [name for name, _ in events]
    assert [name for name, _ in named_events(by_body.text)] == names
    assert (names[0], names[-1]) == ("info", "done")
    assert events[0][1] == {
        "model": "fake-pictures",
        "count": 2,
        "steps": 8,
        "sizes": [{"width": 64, "height": 64}],
        "seed": 1,
    }
    steps = [data for name, data in events if name == "progress"]
    for index in (0, 1):
        taken = [step["step"] for step in steps if step["index"] == index]
        assert taken == list(range(1, 9))
    views = [data for name, data in events if name == "preview"]
    assert views
    assert {view["step"] for view in views} <= {3, 6}
    for view in views:
        assert max(pixels(base64.b64decode(view["image"])).shape[:2]) == 32
    pictures = [data for name, data in events if name == "picture"]
    assert sorted(picture["index"] for picture in pictures) == [0, 1]
    for picture in pictures:
        file = base64.b64decode(picture["image"])
        assert picture["sha256"] == hashlib.sha256(file).hexdigest()
    done = events[-1][1]
    assert (done["pictures"], done["withheld"], done["usage"]["images"]) == (2, 0, 2)
    assert {event.totals.images for event in await rest.events("pictures-events")} == {2}


def _edit_form(picture, **fields):
    return {"data": {"prompt": PROMPT, **fields}, "files": [("image", ("a.png", picture()))]}


async def test_an_edit_by_form_and_by_json_is_the_same(rest, picture, pixels):
    async with rest.client(await rest.key("edits-ways")) as client:
        form = await client.post(
            "/api/image-to-image", **_edit_form(picture, seed="5", strength="0.5")
        )
        body = {"prompt": PROMPT, "seed": 5, "strength": 0.5}
        body["image"] = base64.b64encode(picture()).decode()
        as_json = await client.post("/api/image-to-image", json=body)
        body["image"] = [body["image"]]
        listed = await client.post("/api/image-to-image", json=body)
    assert form.status_code == as_json.status_code == 200, form.text
    assert files_of(form.json()) == files_of(as_json.json()) == files_of(listed.json())
    record = form.json()["pictures"][0]["record"]
    assert record["source_digest"] == hashlib.sha256(picture()).hexdigest()
    assert (record["strength"], record["steps"], record["schedule_steps"]) == (0.5, 5, 10)
    assert record["mask_digest"] == ""
    event = (await rest.events("edits-ways"))[-1]
    assert event.capability == "image-to-image"
    assert event.totals.millimegapixel_steps <= event.reserved["millimegapixel_steps"]


async def test_every_option_of_an_edit_arrives(rest, picture):
    async with rest.client(await rest.key("edits-options")) as client:
        reply = await client.post(
            "/api/image-to-image",
            data={
                "prompt": PROMPT,
                "negative_prompt": "blue",
                "model": "dall-e-2",
                "width": "40",
                "height": "64",
                "n": "2",
                "seed": "9",
                "steps": "20",
                "guidance_scale": "1.5",
                "scheduler": "ddim",
                "loras": ["fake-lora:-0.25"],
                "deterministic": "true",
                "strength": "0.25",
                "mask_blur": "3",
                "resize_mode": "crop",
                "format": "webp",
                "quality": "80",
                "priority": "-2",
                "truncate_prompt": "true",
            },
            files=[
                ("image", ("a.png", picture(64, 48))),
                ("image[]", ("b.png", picture(64, 48, shape="WEBP"))),
                ("mask", ("m.png", picture(64, 48, mode="L"))),
            ],
        )
    assert reply.status_code == 200, reply.text
    job = rest.editing_engine.drawn[-1].job
    assert (job.negative_prompt, job.model, job.n, job.strength) == ("blue", "fake-edits", 2, 0.25)
    assert (job.priority, job.truncate_prompt) == (-2, True)
    asked = job.denoising
    assert (asked.steps, asked.seed, asked.guidance_scale) == (20, 9, 1.5)
    assert asked.scheduler is SchedulerKind.DDIM
    assert [(lora.id, lora.scale) for lora in asked.loras] == [("fake-lora", -0.25)]
    assert [source.pixels.shape for source in job.sources] == [(64, 40, 3)] * 2
    assert job.sources[0].mask is not None
    answer = reply.json()
    assert [told["index"] for told in answer["pictures"]] == [0, 1, 2, 3]
    for told, file in zip(answer["pictures"], files_of(answer), strict=True):
        assert told["format"] == "webp"
        with Image.open(io.BytesIO(file)) as image:
            assert image.size == (40, 64)


async def test_outside_of_the_mask_nothing_changes(rest, picture, pixels):
    source, shown = picture(64, 64), np.zeros((64, 64), np.uint8)
    shown[:, 32:] = 255
    mask = io.BytesIO()
    Image.fromarray(shown).save(mask, "PNG")
    async with rest.client(await rest.key("edits-mask")) as client:
        reply = await client.post(
            "/api/image-to-image",
            data={"prompt": PROMPT, "strength": "1", "resize_mode": "none"},
            files={"image": source, "mask": mask.getvalue()},
            headers={"accept": "image/png"},
        )
    assert reply.headers["content-type"] == "image/png"
    made, before = pixels(reply.content), pixels(source)
    assert np.array_equal(made[:, :32], before[:, :32])
    assert not np.array_equal(made[:, 32:], before[:, 32:])


async def test_uploads_spill_to_disk_and_arrive_whole(rest, picture):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert 1 << 20 < len(file.getvalue()) < 2 << 20
    async with rest.client(await rest.key("edits-large")) as client:
        reply = await client.post(
            "/api/image-to-image",
            data={"prompt": PROMPT, "stream": "true"},
            files={"image": file.getvalue()},
        )
    assert "event: done" in reply.text
    (source,) = rest.editing_engine.drawn[-1].job.sources
    assert source.digest == hashlib.sha256(file.getvalue()).hexdigest()


async def test_picture_models_are_listed_with_what_they_take(rest):
    async with rest.client(await rest.key("pictures-lists")) as client:
        models = (await client.get("/v1/models")).json()["data"]
        details = {m["id"]: m for m in (await client.get("/api/models")).json()["models"]}
        health = (await client.get("/health")).json()["services"]
        described = (await client.get("/openapi.json")).json()["paths"]
    assert {"fake-pictures", "fake-edits"} <= {model["id"] for model in models}
    drawing = details["fake-pictures"]
    assert (drawing["state"], drawing["default_for"]) == ("ready", ["text-to-image"])
    limits = drawing["pictures"]
    assert (limits["native_width"], limits["max_side"], limits["default_steps"]) == (64, 1024, 8)
    assert (limits["default_scheduler"], limits["loras"]) == ("euler", ["fake-lora"])
    assert details["fake-edits"]["pictures"]["default_steps"] == 10
    assert details["fake-chat"]["pictures"] is None
    assert health["text2image"] == {"status": "ready", "capabilities": ["text-to-image"]}
    assert health["img2img"] == {"status": "ready", "capabilities": ["image-to-image"]}
    for path in ("/api/text-to-image", "/api/image-to-image"):
        content = described[path]["post"]["responses"]["200"]["content"]
        assert set(content) == {"application/json", "image/*", "text/event-stream"}


async def test_a_service_that_is_down_says_so(start_rest):
    async with (
        start_rest(pictures=False) as rest,
        rest.client(await rest.key("pictures-down")) as client,
    ):
        reply = await client.post("/api/text-to-image", json={"prompt": PROMPT})
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        details = (await client.get("/api/models")).json()["models"]
        down = [model for model in details if model["service"] in ("text2image", "img2img")]
        assert {model["state"] for model in down} == {"unknown"}
        assert {model["pictures"] for model in down} == {None}
        health = (await client.get("/health")).json()
        assert health["services"]["img2img"]["status"] == "down"
        events = await rest.events("pictures-down")
    assert [event.outcome for event in events] == ["refunded"]
