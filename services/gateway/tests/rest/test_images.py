"""Pictures by OpenAI's endpoints and its official client: drawing, editing, streaming."""

import base64
import io
import time

import numpy as np
import openai
import pytest
from PIL import Image

from atrium_diffusion.domain import SchedulerKind

PROMPT = "a red circle"


def files_of(answer):
    return [base64.b64decode(image.b64_json) for image in answer.data]


async def test_official_client_draws(rest, pixels):
    client = rest.openai(await rest.key("images-plain"))
    answer = await client.images.generate(prompt=PROMPT, model="gpt-image-1", n=2, size="96x64")
    assert [pixels(file).shape for file in files_of(answer)] == [(64, 96, 3)] * 2
    assert (answer.size, answer.output_format, answer.background) == ("96x64", "png", "opaque")
    assert answer.quality == "medium"
    assert abs(answer.created - time.time()) < 600
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (0, 0, 0)
    assert (usage.input_tokens_details.text_tokens, usage.model_extra["images"]) == (0, 2)
    assert answer.model_extra["withheld"] == []
    assert answer.data[1].model_extra["record"]["seed"] == (
        answer.data[0].model_extra["record"]["seed"] + 1
    )
    (event,) = await rest.events("images-plain")
    assert (event.model, event.totals.images) == ("fake-pictures", 2)


async def test_every_parameter_of_the_official_client(rest):
    client = rest.openai(await rest.key("images-parameters"))
    answer = await client.images.generate(
        prompt=PROMPT,
        model=None,
        background="opaque",
        moderation="auto",
        n=None,
        output_compression=70,
        output_format="webp",
        partial_images=0,
        quality="auto",
        response_format="b64_json",
        safety_identifier="someone",
        size="auto",
        stream=False,
        user="someone",
    )
    (file,) = files_of(answer)
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))
    assert answer.output_format == "webp"


async def test_what_goes_beyond_openai(rest):
    client = rest.openai(await rest.key("images-beyond"))
    await client.images.generate(
        prompt=PROMPT,
        extra_body={
            "negative_prompt": "blue",
            "seed": 11,
            "steps": 3,
            "guidance_scale": 1.5,
            "scheduler": "unipc",
            "loras": ["fake-lora:0.75"],
            "deterministic": True,
            "embed_record": True,
            "priority": 1,
            "truncate_prompt": True,
        },
    )
    job = rest.drawing_engine.drawn[-1].job
    asked = job.denoising
    assert (job.negative_prompt, asked.seed, asked.steps) == ("blue", 11, 3)
    assert (asked.guidance_scale, asked.scheduler) == (1.5, SchedulerKind.UNIPC)
    assert [(lora.id, lora.scale) for lora in asked.loras] == [("fake-lora", 0.75)]
    assert (asked.deterministic, job.priority, job.truncate_prompt) == (True, 1, True)


@pytest.mark.parametrize(
    ("quality", "steps", "shown"),
    [
        ("low", 4, "low"),
        ("standard", None, "medium"),
        ("medium", None, "medium"),
        ("hd", 12, "high"),
        ("max", 24, "max"),
    ],
)
async def test_quality_is_steps(rest, quality, steps, shown):
    client = rest.openai(await rest.key("images-quality"))
    answer = await client.images.generate(prompt=PROMPT, quality=quality)
    assert rest.drawing_engine.drawn[-1].job.denoising.steps == steps
    assert answer.quality == shown
    given = await client.images.generate(prompt=PROMPT, quality=quality, extra_body={"steps": 2})
    assert rest.drawing_engine.drawn[-1].schedule_steps == 2
    assert given.quality == shown


async def test_events_of_the_official_shape(rest, pixels):
    client = rest.openai(await rest.key("images-events"))
    stream = await client.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, n=2, output_format="jpeg", size="64x48"
    )
    events = [event async for event in stream]
    views = [event for event in events if event.type == "image_generation.partial_image"]
    finished = [event for event in events if event.type == "image_generation.completed"]
    assert len(views) + len(finished) == len(events)
    for index in (0, 1):
        mine = [view for view in views if view.model_extra["index"] == index]
        assert 1 <= len(mine) <= 3
        assert [view.partial_image_index for view in mine] == list(range(len(mine)))
    for view in views:
        assert (view.output_format, view.size, view.background) == ("jpeg", "64x48", "opaque")
        assert pixels(base64.b64decode(view.b64_json)).size
    assert sorted(event.model_extra["index"] for event in finished) == [0, 1]
    for event in finished:
        assert pixels(base64.b64decode(event.b64_json)).shape == (48, 64, 3)
        assert (event.output_format, event.quality) == ("jpeg", "medium")
    assert sum(event.usage.model_extra["images"] for event in finished) == 2
    (event,) = await rest.events("images-events")
    told = sum(one.usage.model_extra["megapixel_steps"] for one in finished)
    assert told == pytest.approx(event.totals.millimegapixel_steps / 1000)


async def test_one_event_without_partial_images(rest):
    client = rest.openai(await rest.key("images-one-event"))
    stream = await client.images.generate(prompt=PROMPT, stream=True)
    assert [event.type async for event in stream] == ["image_generation.completed"]


async def test_official_client_edits_one_picture_and_several(rest, picture, pixels):
    client = rest.openai(await rest.key("edits-plain"))
    one = await client.images.edit(image=picture(), prompt=PROMPT, model="gpt-image-1")
    assert len(one.data) == 1
    assert rest.editing_engine.drawn[-1].job.strength == 0.6
    shapes = [("a.png", picture(64, 48)), ("b.jpg", picture(48, 64, shape="JPEG"), "image/jpeg")]
    several = await client.images.edit(image=shapes, prompt=PROMPT, n=2)
    sizes = [pixels(file).shape[:2] for file in files_of(several)]
    assert sizes[0] == sizes[1] != sizes[2] == sizes[3]
    assert several.size is None
    sized = await client.images.edit(image=shapes, prompt=PROMPT, size="80x64")
    assert [pixels(file).shape[:2] for file in files_of(sized)] == [(64, 80)] * 2
    assert sized.size == "80x64"
    assert [event.totals.images for event in await rest.events("edits-plain")] == [1, 4, 2]


async def test_every_parameter_of_an_edit(rest, picture):
    client = rest.openai(await rest.key("edits-parameters"))
    answer = await client.images.edit(
        image=("a.webp", picture(shape="WEBP"), "application/octet-stream"),
        mask=("m.png", picture(mode="RGBA")),
        prompt=PROMPT,
        model="dall-e-2",
        background="auto",
        input_fidelity="low",
        n=2,
        output_compression=100,
        output_format="png",
        partial_images=0,
        quality="high",
        response_format="b64_json",
        safety_identifier="someone",
        size="64x64",
        user="someone",
        extra_body={
            "seed": 4,
            "strength": 0.5,
            "mask_blur": 2,
            "resize_mode": "stretch",
            "loras": ["fake-lora"],
            "moderation": "auto",
            "negative_prompt": "blue",
            "deterministic": True,
        },
    )
    assert len(answer.data) == 2
    job = rest.editing_engine.drawn[-1].job
    assert (job.strength, job.denoising.seed, job.denoising.steps) == (0.5, 4, 15)
    assert [lora.id for lora in job.denoising.loras] == ["fake-lora"]
    assert job.denoising.deterministic


async def test_transparent_is_drawn_anew_and_the_rest_kept(rest, picture, pixels):
    source = picture(64, 64)
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:32] = 0
    holes = Image.open(io.BytesIO(source)).convert("RGBA")
    holes.putalpha(Image.fromarray(alpha))
    mask = io.BytesIO()
    holes.save(mask, "PNG")
    client = rest.openai(await rest.key("edits-alpha"))
    answer = await client.images.edit(
        image=source, mask=mask.getvalue(), prompt=PROMPT, size="64x64"
    )
    assert rest.editing_engine.drawn[-1].job.strength == 1.0
    (file,) = files_of(answer)
    assert np.array_equal(pixels(file)[32:], pixels(source)[32:])
    assert not np.array_equal(pixels(file)[:32], pixels(source)[:32])


async def test_events_of_an_edit(rest, picture):
    client = rest.openai(await rest.key("edits-events"))
    stream = await client.images.edit(
        image=picture(64, 64), prompt=PROMPT, stream=True, partial_images=2
    )
    kinds = [event.type async for event in stream]
    assert set(kinds[:-1]) == {"image_edit.partial_image"}
    assert kinds[-1] == "image_edit.completed"


async def test_an_edit_by_json(rest, picture):
    def reference(data):
        return {"image_url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}

    async with rest.client(await rest.key("edits-json")) as client:
        body = {
            "prompt": PROMPT,
            "images": [reference(picture()), reference(picture(40, 40))],
            "n": 2,
            "seed": 1,
        }
        reply = await client.post("/v1/images/edits", json=body)
        assert [one["index"] for one in reply.json()["data"]] == [0, 1, 2, 3]
        masked = {**body, "images": body["images"][:1], "mask": reference(picture(mode="L"))}
        assert (await client.post("/v1/images/edits", json=masked)).status_code == 200
        for wrong in ({"file_id": "file-1"}, {"image_url": "https://example.com/a.png"}):
            refused = await client.post("/v1/images/edits", json={**body, "images": [wrong]})
            assert refused.status_code == 400
            assert refused.json()["error"]["param"].startswith("images[0]")


async def test_service_errors_carry_openais_names(rest):
    client = rest.openai(await rest.key("images-names"))
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.generate(prompt=PROMPT, size="1000x1000000")
    assert refused.value.param == "size"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.generate(prompt=PROMPT, size="100x64")
    assert refused.value.param == "size"
    assert "16 to 1024" in refused.value.message
