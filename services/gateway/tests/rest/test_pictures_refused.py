"""Pictures that are refused, withheld or limited: named errors, and nothing is charged for none."""

import asyncio
import base64
import json
import struct
import zlib

import openai
import pytest

from atrium_gateway.quota.limits import Limit, Unit, Window

PROMPT = "a red circle"
GOOD = {"prompt": PROMPT}
MP_STEP = Unit.MEGAPIXEL_STEPS


@pytest.fixture(scope="module")
async def client(rest):
    """A client of a tenant whose requests are all wrong."""
    async with rest.client(await rest.key("pictures-wrong", unlimited=True)) as made:
        yield made


async def charged(rest, tenant="pictures-wrong"):
    """What a tenant paid for: nothing, after refusals."""
    return [event for event in await rest.events(tenant) if event.totals.requests]


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"prompt": None}, 400, "prompt", "invalid_value"),
        ({"prompt": ""}, 400, "prompt", "invalid_value"),
        ({"prompt": " \n"}, 400, "prompt", "empty_prompt"),
        ({"prompt": "a" * 4001}, 400, "prompt", "invalid_value"),
        ({"prompt": "a " * 100}, 400, "prompt", "prompt_too_long"),
        ({"model": "dall-e-9"}, 404, "model", "model_not_found"),
        ({"model": "fake-chat"}, 404, "model", "model_not_found"),
        ({"model": "fake-edits"}, 404, "model", "model_not_found"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 1000}, 400, "n", "invalid_value"),
        ({"size": "big"}, 400, "size", "invalid_value"),
        ({"size": "0x64"}, 400, "size", "invalid_value"),
        ({"size": "1000000x1000000"}, 400, "size", "invalid_argument"),
        ({"size": "65x64"}, 400, "size", "invalid_argument"),
        ({"quality": "lovely"}, 400, "quality", "invalid_value"),
        ({"response_format": "url"}, 400, "response_format", "invalid_argument"),
        ({"output_format": "gif"}, 400, "output_format", "invalid_value"),
        ({"output_compression": 50}, 400, "output_compression", "invalid_argument"),
        ({"output_compression": 101}, 400, "output_compression", "invalid_value"),
        ({"partial_images": 1}, 400, "partial_images", "invalid_argument"),
        ({"partial_images": 4, "stream": True}, 400, "partial_images", "invalid_value"),
        ({"background": "transparent"}, 400, "background", "invalid_value"),
        ({"moderation": "low"}, 400, "moderation", "invalid_value"),
        ({"steps": -1}, 400, "steps", "invalid_value"),
        ({"steps": 151}, 400, "steps", "invalid_value"),
        ({"guidance_scale": 31}, 400, "guidance_scale", "invalid_value"),
        ({"scheduler": "heun"}, 400, "scheduler", "invalid_value"),
        ({"seed": -1}, 400, "seed", "invalid_value"),
        ({"seed": 2**63}, 400, "seed", "invalid_value"),
        ({"seed": 2**63 - 1, "n": 2}, 400, "seed", "invalid_argument"),
        ({"loras": ["none"]}, 404, "loras", "lora_not_found"),
        ({"loras": ["fake-lora", "fake-lora"]}, 400, "loras[1].id", "invalid_argument"),
        ({"loras": ["fake-lora:3"]}, 400, "loras[0].scale", "invalid_argument"),
        ({"loras": [{"id": "fake-lora", "scale": 3}]}, 400, "loras[0].scale", "invalid_value"),
        ({"loras": ["fake-lora:"]}, 400, "loras[0]", "invalid_value"),
        ({"priority": 3}, 400, "priority", "invalid_value"),
        ({"embed_record": True, "output_format": "webp"}, 400, "embed_record", "invalid_argument"),
        ({"strength": 0.5}, 400, "strength", "unknown_parameter"),
    ],
)
async def test_what_is_wrong_is_named_and_free(rest, client, change, status, param, code):
    reply = await client.post("/v1/images/generations", json=GOOD | change)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert await charged(rest) == []


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"prompt": 5}, 400, "prompt"),
        ({"width": 0}, 400, "width"),
        ({"width": 1_000_000}, 400, "width"),
        ({"height": 100}, 400, "height"),
        ({"width": 2**31}, 400, "width"),
        ({"n": 17}, 400, "n"),
        ({"format": "bmp"}, 400, "format"),
        ({"quality": 90}, 400, "quality"),
        ({"quality": 0, "format": "jpeg"}, 400, "quality"),
        ({"embed_record": True, "format": "jpeg"}, 400, "embed_record"),
        ({"preview_interval": 2}, 400, "preview_interval"),
        ({"preview_interval": 51, "stream": True}, 400, "preview_interval"),
        ({"preview_max_side": 8, "stream": True}, 400, "preview_max_side"),
        ({"loras": [{"id": "a", "weight": 1}]}, 400, "loras[0].weight"),
        ({"scheduler": 1}, 400, "scheduler"),
        ({"size": "64x64"}, 400, "size"),
    ],
)
async def test_the_suites_own_names_them_too(rest, client, change, status, field):
    reply = await client.post("/api/text-to-image", json=GOOD | change)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["field"] == field
    assert await charged(rest) == []


async def test_numbers_that_are_none_and_bodies_that_are_no_json(rest):
    async with rest.client(await rest.key("pictures-json-wrong")) as client:
        for content in (b'{"prompt":"a","guidance_scale":NaN}', b"{", b"[]", b"\xff"):
            for path in ("/v1/images/generations", "/api/text-to-image"):
                reply = await client.post(path, content=content)
                assert reply.status_code == 400
        form = {"prompt": PROMPT, "guidance_scale": "nan"}
        reply = await client.post("/api/image-to-image", data=form, files={"image": b"x"})
        assert reply.json()["field"] == "guidance_scale"
        unknown = await client.post("/api/text-to-image?quality=1", json=GOOD)
        assert unknown.json()["field"] == "quality"
    assert await rest.events("pictures-json-wrong") == []


async def test_a_file_is_one_picture_of_one_format(rest):
    async with rest.client(await rest.key("pictures-file-wrong")) as client:
        png = {"accept": "image/png"}
        two = await client.post("/api/text-to-image", json=GOOD | {"n": 2}, headers=png)
        other = await client.post("/api/text-to-image", json=GOOD | {"format": "jpeg"}, headers=png)
    assert (two.status_code, two.json()["field"]) == (400, "n")
    assert (other.status_code, other.json()["field"]) == (400, "format")
    assert await rest.events("pictures-file-wrong") == []


def _bomb():
    """A PNG that says it has 60000 x 60000 pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 16))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


async def test_uploads_that_are_no_pictures(rest, picture):
    whole = picture()
    uploads = {
        "empty": b"",
        "text": b"hello",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "gif": picture(shape="GIF"),
        "cut": whole[: len(whole) // 2],
        "bomb": _bomb(),
    }
    async with rest.client(await rest.key("edits-wrong", unlimited=True)) as client:
        for name, data in uploads.items():
            for path in ("/v1/images/edits", "/api/image-to-image"):
                reply = await client.post(path, data=GOOD, files={"image": ("a.png", data)})
                assert reply.status_code == 400, name
                told = reply.json()
                error = told.get("error", told)
                assert error.get("param", error.get("field")) == "image", name
                assert error["code"] == "invalid_media", name
                masked = {"image": whole, "mask": data}
                reply = await client.post(path, data=GOOD, files=masked)
                told = reply.json()
                error = told.get("error", told)
                assert error.get("param", error.get("field")) == "mask", name
        health = await client.get("/health")
    assert health.status_code == 200
    assert await charged(rest, "edits-wrong") == []


@pytest.mark.parametrize(
    ("data", "names", "status", "field"),
    [
        (GOOD, [], 415, None),
        (GOOD, ["mask"], 400, "image"),
        (GOOD, ["image", "mask", "mask"], 400, "mask"),
        (GOOD, ["image", "markup"], 400, "markup"),
        (GOOD, ["image"] * 18, 400, None),
        ({"prompt": [PROMPT, PROMPT]}, ["image"], 400, "prompt"),
        ({}, ["image"], 400, "prompt"),
        (GOOD | {"image": "a"}, ["image"], 400, "image"),
        (GOOD | {"n": "9"}, ["image", "image"], 400, "n"),
        (GOOD | {"strength": "1.5"}, ["image"], 400, "strength"),
        (GOOD | {"mask_blur": "3"}, ["image"], 400, "mask_blur"),
        (GOOD | {"mask_blur": "65"}, ["image", "mask"], 400, "mask_blur"),
        (GOOD | {"resize_mode": "melt"}, ["image"], 400, "resize_mode"),
        (GOOD | {"seed": "x"}, ["image"], 400, "seed"),
        (GOOD | {"stream": "perhaps"}, ["image"], 400, "stream"),
    ],
)
async def test_forms_that_do_not_hold(rest, client, picture, data, names, status, field):
    files = [(name, ("a.png", picture())) for name in names]
    for path in ("/v1/images/edits", "/api/image-to-image"):
        reply = await client.post(path, data=data, files=files)
        assert reply.status_code == status, reply.text
        told = reply.json()
        assert told.get("error", told).get("param" if "error" in told else "field") == field
    assert await charged(rest) == []


async def test_masks_of_another_size(rest, picture):
    async with rest.client(await rest.key("edits-mask-size")) as client:
        for images in ([picture(64, 48)], [picture(32, 32), picture(64, 64)]):
            files = [("image", image) for image in images] + [("mask", picture(32, 32))]
            reply = await client.post("/v1/images/edits", data=GOOD, files=files)
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == "mask"
    assert await charged(rest, "edits-mask-size") == []


async def test_uploads_over_their_limits(rest):
    async with rest.client(await rest.key("edits-large-wrong")) as client:
        for path in ("/v1/images/edits", "/api/image-to-image"):
            one = await client.post(path, data=GOOD, files={"image": bytes((2 << 20) + 1)})
            assert one.status_code == 413
            assert b"2097152" in one.content
            form = await client.post(path, data=GOOD, files={"image": bytes(9 << 20)})
            assert form.status_code == 413
            body = json.dumps({"prompt": PROMPT, "image": "A" * (5 << 20)})
            as_json = await client.post(
                path, content=body, headers={"content-type": "application/json"}
            )
            assert as_json.status_code == 413
        encoded = base64.b64encode(bytes((2 << 20) + 3)).decode()
        reply = await client.post("/api/image-to-image", json={"prompt": PROMPT, "image": encoded})
        assert (reply.status_code, reply.json()["field"]) == (413, "image")
        broken = await client.post("/api/image-to-image", json={"prompt": PROMPT, "image": "###"})
        assert (broken.status_code, broken.json()["field"]) == (400, "image")
        url = {"image_url": "data:image/png;base64,###"}
        broken = await client.post("/v1/images/edits", json={"prompt": PROMPT, "images": [url]})
        assert broken.json()["error"]["code"] == "invalid_media"
    assert await rest.events("edits-large-wrong") == []


async def test_credential_without_the_scope(rest, picture):
    await rest.key("pictures-scope")
    async with rest.client(rest.token("pictures-scope", scopes=frozenset({"chat"}))) as client:
        for path in ("/v1/images/generations", "/api/text-to-image"):
            assert (await client.post(path, json=GOOD)).status_code == 403
        for path in ("/v1/images/edits", "/api/image-to-image"):
            reply = await client.post(path, data=GOOD, files={"image": picture()})
            assert reply.status_code == 403


async def test_callers_at_a_limit_of_images(rest):
    limit = Limit("text-to-image", Unit.IMAGES, Window.DAY, 6)
    async with rest.client(await rest.key("images-limit", limit)) as client:
        replies = await asyncio.gather(
            *(client.post("/v1/images/generations", json=GOOD | {"n": 2}) for _ in range(8))
        )
        assert sorted(reply.status_code for reply in replies) == [200] * 3 + [429] * 5
        for reply in replies:
            assert reply.headers["x-ratelimit-limit-images"] == "6"
            if reply.status_code == 429:
                assert reply.json()["error"]["code"] == "insufficient_quota"
        one = await client.post("/api/text-to-image", json=GOOD)
        assert one.status_code == 429
    events = await rest.events("images-limit")
    assert [event.totals.images for event in events] == [2] * 3


async def test_a_limit_of_megapixel_steps_is_exact(rest):
    # 512 x 512 in 20 steps: 5242.88 thousandths, rounded up. Three of them fit.
    limit = Limit("text-to-image", MP_STEP, Window.DAY, 16)
    body = {"prompt": PROMPT, "width": 512, "height": 512, "steps": 20}
    async with rest.client(await rest.key("steps-limit", limit)) as client:
        replies = await asyncio.gather(
            *(client.post("/api/text-to-image", json=body) for _ in range(5))
        )
        assert sorted(reply.status_code for reply in replies) == [200] * 3 + [429] * 2
        little = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 4}
        assert (await client.post("/api/text-to-image", json=little)).status_code == 200
    events = await rest.events("steps-limit")
    assert [event.totals.millimegapixel_steps for event in events] == [5243] * 3 + [17]
    assert all(event.reserved["millimegapixel_steps"] >= 17 for event in events)


async def test_sizes_that_are_left_open_are_reserved_and_given_back(rest):
    # The catalogue names no size, so that 1024 x 1024 is reserved: 8.4 megapixel-steps.
    limit = Limit("text-to-image", MP_STEP, Window.DAY, 9)
    async with rest.client(await rest.key("steps-open", limit)) as client:
        for _ in range(3):
            reply = await client.post("/api/text-to-image", json=GOOD)
            assert reply.status_code == 200
        assert int(reply.headers["x-ratelimit-limit-megapixel-steps"]) == 9
    events = await rest.events("steps-open")
    assert [event.totals.millimegapixel_steps for event in events] == [33] * 3


async def test_all_withheld_is_an_error_and_charged(rest, monkeypatch, picture):
    monkeypatch.setattr(rest.safety, "refuses", lambda mean: True)
    client = rest.openai(await rest.key("withheld-all"))
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.generate(prompt=PROMPT)
    assert refused.value.code == "content_policy_violation"
    with pytest.raises(openai.BadRequestError):
        await client.images.edit(prompt=PROMPT, image=picture())
    stream = aiter(await client.images.generate(prompt=PROMPT, stream=True))
    assert (await anext(stream)).type == "image_generation.withheld"
    with pytest.raises(openai.APIError) as broken:
        await anext(stream)
    assert broken.value.code == "content_policy_violation"
    async with rest.client(await rest.key("withheld-all")) as plain:
        reply = await plain.post("/api/text-to-image", json=GOOD)
        assert (reply.status_code, reply.json()["code"]) == (400, "content_policy_violation")
        reply = await plain.post("/api/text-to-image", json=GOOD, headers={"accept": "image/png"})
        assert reply.status_code == 400
        reply = await plain.post("/api/text-to-image?stream=true", json=GOOD)
        assert reply.text.rpartition("event: ")[2].startswith("error")
    events = await rest.events("withheld-all")
    assert [event.totals.images for event in events] == [1] * 6
    assert {event.outcome for event in events} == {"completed"}


async def test_some_withheld_are_left_out_with_a_note(rest, monkeypatch, named_events):
    async with rest.client(await rest.key("withheld-some")) as client:
        body = {"prompt": PROMPT, "n": 6, "seed": 1}
        whole = (await client.post("/api/text-to-image", json=body)).json()["pictures"]
        seen = []
        monkeypatch.setattr(
            rest.safety, "refuses", lambda mean: bool(seen.append(mean)) or len(seen) % 2 == 0
        )
        some = (await client.post("/api/text-to-image", json=body)).json()
        answer = (await client.post("/v1/images/generations", json=body)).json()
        stream = await client.post("/v1/images/generations", json=body | {"stream": True})
        own = await client.post("/api/text-to-image?stream=true", json=body)
    told = some["pictures"]
    assert [one["withheld"] for one in told] == [None, "unsafe"] * 3
    assert all(("image" in one) == (one["withheld"] is None) for one in told)
    assert told[0]["image"] == whole[0]["image"]
    assert some["usage"]["images"] == 6
    assert [one["index"] for one in answer["data"]] == [0, 2, 4]
    assert answer["withheld"] == [{"index": n, "reason": "unsafe"} for n in (1, 3, 5)]
    names = [name for name, _ in named_events(stream.text)]
    assert names == ["image_generation.completed", "image_generation.withheld"] * 3
    done = named_events(own.text)[-1][1]
    assert (done["pictures"], done["withheld"]) == (3, 3)
