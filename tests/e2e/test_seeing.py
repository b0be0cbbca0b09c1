"""Captions, answers and text out of pictures by real models through both doors.

The starter captioner says what the starter painter draws, and Tesseract reads pages whose
text and boxes are known.
"""

import asyncio
import base64
import hashlib
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import httpx
import pypdfium2
import pytest
import tesserocr
from openai import AsyncOpenAI
from PIL import Image

from atrium.common.v1 import media_pb2
from atrium.img2text.v1 import img2text_pb2, img2text_pb2_grpc
from atrium_diffusion.testing.shapes import PLAIN_SCENES, render, seeded, several
from atrium_diffusion.testing.wording import says
from atrium_img2text.reading import Box, Line, Page, Word
from atrium_img2text.testing.pages import (
    RENDERERS,
    RenderedPage,
    character_error_rate,
    share_of_words_found,
)
from tests.kit.pictures import png
from tests.kit.suite import MODELS, Suite

CAPTIONER, READER = "blip2-shapes-64", "tesseract"

pytestmark = pytest.mark.model


async def billed(rest: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The tenant's records in the ledger, newest first."""
    answer = await rest.get("/api/usage/events")
    answer.raise_for_status()
    return list(answer.json()["events"])


async def asked(
    rest: httpx.AsyncClient, path: str, file: bytes, **fields: str | list[str]
) -> dict[str, Any]:
    """Uploads a file as a form; the JSON answer."""
    answer = await rest.post(path, files={"file": ("file", file)}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def as_page(told: Mapping[str, Any]) -> Page:
    """A page of an answer as the engines' own."""
    lines = [
        Line(
            text=line["text"],
            box=Box(**line["box"]),
            confidence=line["confidence"],
            words=[
                Word(word["text"], Box(**word["box"]), word["confidence"]) for word in line["words"]
            ],
            block=line["block"],
            paragraph=line["paragraph"],
        )
        for line in told["lines"]
    ]
    return Page(number=told["number"], lines=lines, width=told["width"], height=told["height"])


@pytest.fixture(scope="module")
def pages() -> Mapping[str, RenderedPage]:
    """The six pages, by name."""
    return {name: rendered() for name, rendered in RENDERERS.items()}


async def test_what_is_drawn_is_what_is_seen(
    plain_pictures: Mapping[str, bytes], rest: httpx.AsyncClient
) -> None:
    async def seen(picture: bytes) -> str:
        answer = await asked(rest, "/api/image-to-text", picture)
        return str(answer["captions"][0]["text"])

    captions = await asyncio.gather(*map(seen, plain_pictures.values()))
    wrong = {
        prompt: caption
        for prompt, caption in zip(plain_pictures, captions, strict=True)
        if not says(caption, PLAIN_SCENES[prompt])
    }
    assert len(captions) == 60
    assert len(wrong) <= 3, wrong

    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["requests"], sums["images"], sums["pages"]) == (60, 60, 0)
    assert sums["output_tokens"] > 60


async def test_both_doors_say_the_same_on_the_same_bill(
    suite: Suite, key: str, rest: httpx.AsyncClient
) -> None:
    picture = png(render(several(3, "green", "star"), seeded(1)))
    by_rest = await asked(rest, "/api/image-to-text", picture)

    def upload() -> Iterator[img2text_pb2.DescribeImageRequest]:
        yield img2text_pb2.DescribeImageRequest(config=img2text_pb2.DescriptionConfig())
        yield img2text_pb2.DescribeImageRequest(chunk=media_pb2.MediaChunk(data=picture))
        digest = hashlib.sha256(picture).digest()
        end = media_pb2.MediaEnd(sha256=digest, size=len(picture))
        yield img2text_pb2.DescribeImageRequest(end=end)

    async with grpc.aio.insecure_channel(suite.target("img2text")) as channel:
        stub = img2text_pb2_grpc.ImageUnderstandingServiceStub(channel)
        call = stub.DescribeImage(upload(), metadata=(("authorization", f"Bearer {key}"),))
        messages = [message async for message in call]
    assert [caption["text"] for caption in by_rest["captions"]] == [
        caption.text for message in messages for caption in message.captions
    ]
    assert says(messages[-1].captions[0].text, several(3, "green", "star"))

    first, second = await billed(rest)
    assert first["totals"] == second["totals"] | {"inference_time": pytest.approx(0, abs=60)}
    assert messages[-1].usage.images == first["totals"]["images"] == 1
    assert messages[-1].usage.output_tokens == first["totals"]["output_tokens"]
    assert {first["model"], second["model"]} == {CAPTIONER}


async def test_six_pages_are_read_with_their_words_where_they_stand(
    rest: httpx.AsyncClient, pages: Mapping[str, RenderedPage]
) -> None:
    async def read(truth: RenderedPage) -> tuple[float, float, dict[str, Any]]:
        answer = await asked(rest, "/api/ocr", png(truth.pixels), layout=str(truth.layout))
        [told] = answer["pages"]
        page = as_page(told)
        return (
            character_error_rate(truth.text, told["text"]),
            share_of_words_found(truth, page),
            told,
        )

    found = dict(zip(pages, await asyncio.gather(*map(read, pages.values())), strict=True))
    assert len(found) == 6
    errors = {name: error for name, (error, _, _) in found.items()}
    assert max(errors.values()) <= 0.01, errors
    placed = {name: share for name, (_, share, _) in found.items()}
    assert min(placed.values()) >= 0.95, placed
    for name, (_, _, told) in found.items():
        assert told["languages"][0] == pages[name].language, name
        assert told["rotation"] == pytest.approx(pages[name].rotation, abs=1.0), name

    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["requests"], sums["pages"], sums["images"]) == (6, 6, 0)


async def test_text_over_rest_is_tesseracts_own(
    rest: httpx.AsyncClient, pages: Mapping[str, RenderedPage]
) -> None:
    tessdata = next(MODELS.glob(f"{READER}*"))
    for name in ("prose", "noisy"):
        answer = await asked(
            rest,
            "/api/ocr",
            png(pages[name].pixels),
            languages="en",
            correct_orientation="false",
        )
        with tesserocr.PyTessBaseAPI(path=str(next(tessdata.rglob("eng.*")).parent)) as direct:
            direct.SetImage(Image.fromarray(pages[name].pixels).convert("L"))
            own = direct.GetUTF8Text().split()
        assert answer["text"].split() == own


async def test_documents_are_written_in_forms_that_others_read(
    rest: httpx.AsyncClient, pages: Mapping[str, RenderedPage]
) -> None:
    pictures = [Image.fromarray(pages[name].pixels) for name in ("prose", "german")]
    scan = io.BytesIO()
    pictures[0].save(scan, "TIFF", save_all=True, append_images=pictures[1:])

    async def form(output: str) -> httpx.Response:
        answer = await rest.post(
            "/api/ocr", files={"file": scan.getvalue()}, data={"output": output}
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-atrium-pages"] == "2"
        return answer

    text, hocr, alto, pdf = await asyncio.gather(*map(form, ("text", "hocr", "alto", "pdf")))
    first, second = text.text.split("\f")[:2]
    assert character_error_rate(pages["prose"].text, first) <= 0.01
    assert character_error_rate(pages["german"].text, second) <= 0.01

    words = [
        node for node in ET.fromstring(hocr.content).iter() if node.get("class") == "ocrx_word"
    ]
    strings = [
        node.get("CONTENT")
        for node in ET.fromstring(alto.content).iter()
        if node.tag.endswith("}String")
    ]
    assert ["".join(node.itertext()) for node in words] == strings == text.text.split()

    assert pdf.headers["content-type"] == "application/pdf"
    document = pypdfium2.PdfDocument(pdf.content)
    try:
        assert len(document) == 2
        drawn = document[1].get_textpage().get_text_range()
        assert character_error_rate(pages["german"].text, drawn) <= 0.02
    finally:
        document.close()


async def test_one_upload_is_captioned_asked_about_and_read(
    rest: httpx.AsyncClient, pages: Mapping[str, RenderedPage]
) -> None:
    answer = await asked(
        rest,
        "/api/image-to-text",
        png(pages["prose"].pixels),
        task="all",
        questions=["how many stars are there?", "what colour is it?"],
    )
    assert answer["captions"][0]["text"]
    assert [item["index"] for item in answer["answers"]] == [0, 1]
    assert character_error_rate(pages["prose"].text, answer["text"]) <= 0.01

    parts = {part["model"]: part for part in answer["usage_by_model"]}
    assert parts.keys() == {CAPTIONER, READER}
    assert (parts[CAPTIONER]["images"], parts[READER]["pages"]) == (1, 1)
    events = await billed(rest)
    assert {event["model"] for event in events} == {CAPTIONER, READER}
    assert len({event["request_id"] for event in events}) == 1
    assert sum(event["totals"]["requests"] for event in events) == 1
    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["requests"], sums["images"], sums["pages"]) == (1, 1, 1)


async def test_a_chat_about_a_picture_with_the_official_client(
    client: AsyncOpenAI, rest: httpx.AsyncClient
) -> None:
    picture = png(render(several(2, "blue", "square"), seeded(4)))
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    conversation: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "how many squares are there?"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]
    whole = await client.chat.completions.create(model="gpt-4o", messages=conversation)
    assert whole.choices[0].message.content == "two"
    assert whole.choices[0].finish_reason == "stop"
    stream = await client.chat.completions.create(
        model="gpt-4o",
        messages=conversation,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "two"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens

    first, second = await billed(rest)
    for event in (first, second):
        assert event["totals"]["images"] == 1
        assert event["totals"]["input_tokens"] == whole.usage.prompt_tokens


async def test_captions_pass_a_pile_of_pages_and_health_answers_meanwhile(
    rest: httpx.AsyncClient, pages: Mapping[str, RenderedPage]
) -> None:
    page = png(pages["prose"].pixels)
    picture = png(render(several(1, "red", "circle"), seeded(2)))
    pile = [asyncio.create_task(asked(rest, "/api/ocr", page)) for _ in range(8)]
    await asyncio.sleep(0.2)
    captions = await asyncio.gather(*(asked(rest, "/api/image-to-text", picture) for _ in range(8)))
    health = (await rest.get("/health")).json()
    assert [task for task in pile if not task.done()], "the pile was read before the captions"
    assert health["services"]["img2text"]["status"] == "ready"
    assert all(says(each["captions"][0]["text"], several(1, "red", "circle")) for each in captions)
    assert all(each["info"]["pages"] == 1 for each in await asyncio.gather(*pile))


async def test_what_is_not_taken_is_refused_by_name_and_costs_nothing(
    rest: httpx.AsyncClient,
) -> None:
    picture = png(render(several(1, "red", "circle"), seeded(2)))
    coded = base64.b64encode(picture).decode()
    for body, named in (
        ({"image": coded, "task": "ocr", "languages": ["tlh"]}, "languages"),
        ({"image": coded, "task": "caption", "question": "what?"}, "question"),
        ({"image": coded, "sampling": {}}, "sampling"),
        ({"image_url": "file:///etc/passwd"}, "image_url"),
        ({"image_url": "http://169.254.169.254/latest/meta-data"}, "image_url"),
        ({"image": base64.b64encode(b"%PDF-1.7 nothing").decode(), "task": "ocr"}, "image"),
    ):
        answer = await rest.post("/api/image-to-text", json=body)
        assert 400 <= answer.status_code < 500, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert named in json.dumps(answer.json()), answer.text
    sums = (await rest.get("/api/usage")).json()["totals"]
    assert (sums["requests"], sums["images"], sums["pages"]) == (0, 0, 0)
