"""What is wrong with a request is named, whatever way it comes in, and costs nothing."""

import base64

import pytest

from atrium_common.testing.pictures import refused
from atrium_img2text.testing.documents import (
    encrypted,
    line_of_text,
    many_pages,
    pdf,
    two_pages,
)
from atrium_img2text.testing.hostile import hostile_pictures

PATH = "/api/image-to-text"
TAKEN = {"gif", "gif-animated", "bmp", "tiff"}
"""Refused by other endpoints, but not by these."""
HOSTILE = {
    "encrypted": (encrypted("secret"), "encrypted_document"),
    "500 pages": (many_pages(500), "too_many_pages"),
    "cut": (two_pages()[:300], "invalid_media"),
    "huge page": (pdf([line_of_text("hello")], box="[0 0 2000000 2000000]"), "invalid_media"),
    "looping TIFF": (hostile_pictures()["tiff-loop"].data, "invalid_media"),
}
"""Of each kind one; the service is tested with many more."""
ASK = {"task": "vqa", "question": "why"}
READ = {"task": "ocr"}
MISSING = "missing_required_parameter"


@pytest.fixture(scope="module")
async def client(rest):
    """A client of a tenant whose requests are all wrong, and which is charged nothing."""
    async with rest.client(await rest.key("seeing-wrong", unlimited=True)) as made:
        yield made
    events = await rest.events("seeing-wrong")
    assert {event.outcome for event in events} == {"refunded"}
    assert not any(event.totals.requests for event in events)


@pytest.mark.parametrize(
    ("fields", "status", "field", "code"),
    [
        ({"task": "sing"}, 400, "task", "invalid_value"),
        ({"colour": "red"}, 400, "colour", "unknown_parameter"),
        ({"model": "none"}, 404, "model", "model_not_found"),
        ({"model": "fake-ocr"}, 404, "model", "model_not_found"),
        ({"model": "fake-chat"}, 404, "model", "model_not_found"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 9}, 400, "n", "invalid_value"),
        ({"n": 3, "beams": 2}, 400, "n", "invalid_argument"),
        ({"prefix": ""}, 400, "prefix", "invalid_value"),
        ({"prefix": "a" * 513}, 400, "prefix", "invalid_value"),
        ({"prefix": "a", "prompt": "a"}, 400, "prompt", "invalid_argument"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": 2049}, 400, "max_tokens", "invalid_value"),
        ({"temperature": -0.1}, 400, "temperature", "invalid_value"),
        ({"temperature": 2.1}, 400, "temperature", "invalid_value"),
        ({"temperature": "nan"}, 400, "temperature", "invalid_value"),
        ({"top_p": 0}, 400, "top_p", "invalid_value"),
        ({"top_p": 0.5, "temperature": 0}, 400, "top_p", "invalid_argument"),
        ({"beams": 11}, 400, "beams", "invalid_value"),
        ({"beams": 2, "temperature": 1}, 400, "beams", "invalid_argument"),
        ({"seed": -1}, 400, "seed", "invalid_value"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty", "invalid_value"),
        ({"question": "why"}, 400, "question", "invalid_argument"),
        ({"languages": "en"}, 400, "languages", "invalid_argument"),
        ({"ocr_model": "fake-ocr"}, 400, "ocr_model", "invalid_argument"),
        ({"document_format": "pdf"}, 400, "document_format", "invalid_argument"),
        ({"correct_orientation": "false"}, 400, "correct_orientation", "invalid_argument"),
        ({"min_confidence": 0}, 400, "min_confidence", "invalid_argument"),
        ({"task": "vqa"}, 400, "question", MISSING),
        (ASK | {"questions": ["b"]}, 400, "questions", "invalid_argument"),
        (ASK | {"question": ""}, 400, "question", "invalid_value"),
        (ASK | {"question": "  "}, 400, "question", "invalid_argument"),
        ({"task": "vqa", "questions": ["a", " "]}, 400, "questions[1]", "invalid_argument"),
        ({"task": "vqa", "questions": [" "]}, 400, "questions[0]", "invalid_argument"),
        ({"task": "vqa", "questions": ["a"] * 9}, 400, "questions", "invalid_value"),
        (ASK | {"question": "a" * 4001}, 400, "question", "invalid_value"),
        (ASK | {"question": "a " * 2000, "model": "small"}, 404, "model", "model_not_found"),
        (ASK | {"n": 2}, 400, "n", "invalid_argument"),
        (ASK | {"prompt": "a"}, 400, "prompt", "invalid_argument"),
        (ASK | {"history": "["}, 400, "history", "invalid_argument"),
        (ASK | {"history": '[{"question":"a"}]'}, 400, "history[0].answer", MISSING),
        (ASK | {"instructions": "a" * 4001}, 400, "instructions", "invalid_value"),
        (READ | {"model": "fake-ocr"}, 400, "model", "invalid_argument"),
        (READ | {"ocr_model": "none"}, 404, "ocr_model", "model_not_found"),
        (READ | {"ocr_model": "fake-vision"}, 404, "ocr_model", "model_not_found"),
        (READ | {"question": "why"}, 400, "question", "invalid_argument"),
        (READ | {"seed": 1}, 400, "seed", "invalid_argument"),
        (READ | {"languages": ["en", "tlh"]}, 400, "languages[1]", "invalid_argument"),
        (READ | {"languages": ["en"] * 9}, 400, "languages", "invalid_value"),
        (READ | {"layout": "spiral"}, 400, "layout", "invalid_value"),
        (READ | {"document_format": "docx"}, 400, "document_format", "invalid_value"),
        (READ | {"first_page": 0}, 400, "first_page", "invalid_value"),
        (READ | {"first_page": 2}, 400, "first_page", "invalid_argument"),
        (READ | {"max_pages": 0}, 400, "max_pages", "invalid_value"),
        (READ | {"max_pages": 101}, 400, "max_pages", "invalid_argument"),
        (READ | {"resolution": 71}, 400, "resolution", "invalid_value"),
        (READ | {"min_confidence": 1.1}, 400, "min_confidence", "invalid_value"),
        ({"task": "all", "history": "[]"}, 400, "history", "invalid_argument"),
        ({"task": "all", "instructions": "a"}, 400, "instructions", "invalid_argument"),
        ({"task": "all", "ocr_model": "none"}, 404, "ocr_model", "model_not_found"),
        ({"task": "all", "languages": ["tlh"]}, 400, "languages[0]", "invalid_argument"),
        ({"task": "all", "max_pages": 101}, 400, "max_pages", "invalid_argument"),
        ({"task": "all", "n": 2, "beams": 1}, 400, "n", "invalid_argument"),
    ],
)
async def test_what_is_wrong_is_named(client, picture, fields, status, field, code):
    reply = await client.post(PATH, data=fields, files={"file": picture()})
    problem = reply.json()
    assert reply.status_code == status, problem
    assert reply.headers["content-type"] == "application/problem+json"
    assert (problem["field"], problem["code"]) == (field, code), problem


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("output=docx", 400, "output"),
        ("task=ocr", 400, "task"),
        ("ocr_model=fake-ocr", 400, "ocr_model"),
        ("model=fake-vision", 404, "model"),
        ("document_format=pdf", 400, "document_format"),
        ("output=pdf&stream=true", 400, "stream"),
        ("languages=tlh", 400, "languages[0]"),
        ("max_pages=101", 400, "max_pages"),
        ("first_page=2", 400, "first_page"),
        ("layout=auto&layout=auto", 400, "layout"),
        ("image=abc", 400, "image"),
    ],
)
async def test_reading_names_it_too(client, picture, query, status, field):
    reply = await client.post(f"/api/ocr?{query}", content=picture())
    assert (reply.status_code, reply.json()["field"]) == (status, field), reply.text


async def test_a_picture_comes_once_and_in_a_way_that_is_known(client, picture):
    file = picture()
    text = base64.b64encode(file).decode()
    url = {"image_url": "https://example.com/a.png"}

    async def problem(path=PATH, **request):
        reply = await client.post(path, **request)
        assert reply.status_code == 400, reply.text
        told = reply.json()
        return told["field"], told["code"]

    assert await problem(json={}) == ("image", MISSING)
    assert await problem(files={"task": (None, "caption")}) == ("file", MISSING)
    assert await problem(content=b"") == ("file", "invalid_media")
    assert await problem(files={"file": b""}) == ("file", "invalid_media")
    assert await problem(json={"image": ""}) == ("image", "invalid_media")
    assert await problem(json={"image": "%%%"}) == ("image", "invalid_media")
    assert await problem(json={"image": "é"}) == ("image", "invalid_media")
    assert await problem(json={"image": "data:image/png;base64,%%"}) == ("image", "invalid_media")
    assert await problem(json={"image": 5}) == ("image", "invalid_value")
    assert await problem(files={"picture": file}) == ("picture", "unknown_parameter")
    assert await problem(files={"image": (None, text)}) == ("image", "unknown_parameter")
    assert await problem(content=b"{", headers={"content-type": "application/json"}) == (
        None,
        "invalid_json",
    )
    for both in (
        {"json": {"image": text} | url},
        {"data": url, "files": {"file": file}},
        {"content": file, "params": url},
    ):
        assert await problem(**both) == ("image_url", "invalid_argument")
    # This gateway fetches nothing.
    for only in (
        {"json": url},
        {"files": {"image_url": (None, url["image_url"])}},
        {"content": b"", "params": url},
    ):
        assert await problem(**only) == ("image_url", "url_not_allowed")
    assert await problem(f"{PATH}?task=ocr", json={"image": text}) == ("task", "unknown_parameter")


async def test_uploads_over_the_limit_are_refused_by_name(client, rest):
    large = bytes(3 << 20)
    for way in ({"files": {"file": large}}, {"content": large}):
        reply = await client.post(PATH, **way)
        assert (reply.status_code, reply.json()["field"]) == (413, "file")
    body = {"image": base64.b64encode(large[:2_500_000]).decode()}
    reply = await client.post(PATH, json=body)
    assert (reply.status_code, reply.json()["field"]) == (413, "image")
    reply = await client.post("/api/ocr", content=bytes(9 << 20))
    assert reply.status_code == 413


async def test_files_that_are_no_pictures(client):
    files = {name: data for name, data in refused().items() if name not in TAKEN}
    for number, (name, data) in enumerate(files.items()):
        task = ("caption", "ocr", "all")[number % 3]
        reply = await client.post(f"{PATH}?task={task}", content=data)
        told = reply.json()
        assert (reply.status_code, told["field"]) == (400, "file"), (name, told)
        assert told["code"] == "invalid_media", name
        assert told["detail"]
    assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_documents(client, name):
    data, code = HOSTILE[name]
    for path in ("/api/ocr?output=pdf", f"{PATH}?task=all&stream=true"):
        reply = await client.post(path, content=data)
        told = reply.json()
        assert (reply.status_code, told["field"], told["code"]) == (400, "file", code), told
    assert (await client.get("/health/ready")).status_code == 200


async def test_documents_are_read_and_not_described(client):
    for fields in ({"task": "caption"}, ASK):
        reply = await client.post(PATH, data=fields, files={"file": two_pages()})
        told = reply.json()
        assert (told["status"], told["field"], told["code"]) == (400, "file", "invalid_media")
