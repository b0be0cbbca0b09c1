"""`/api/ocr`: text as JSON, and as files in every whole-document form."""

import base64
import re
from urllib.parse import urlencode

import pytest

FORMS = {
    "text": ("text/plain; charset=utf-8", b"Page 1 of"),
    "hocr": ("text/vnd.hocr+html; charset=utf-8", b"ocr_page"),
    "tsv": ("text/tab-separated-values; charset=utf-8", b"page\tblock"),
    "alto": ("application/xml; charset=utf-8", b"<alto"),
    "pdf": ("application/pdf", b"%PDF"),
}
PATH = "/api/ocr"


async def test_json_is_the_answer_of_the_task(rest, document):
    file = document(3, "TIFF")
    query = {"languages": ["en", "de"], "layout": "sparse", "max_pages": 2, "model": "fake-ocr"}
    async with rest.client(await rest.key("ocr-json")) as client:
        own = (await client.post(PATH, data=query, files={"file": file})).json()
        raw = (await client.post(f"{PATH}?{urlencode(query, doseq=True)}", content=file)).json()
        body = query | {"image": base64.b64encode(file).decode()}
        plain = (await client.post(PATH, json=body)).json()
        task = {**query, "task": "ocr", "ocr_model": query["model"]}
        del task["model"]
        other = await client.post("/api/image-to-text", data=task, files={"file": file})
    assert own["info"] == {"pages": 3, "pages_to_read": 2, "content_type": "image/tiff"}
    assert own["pages"][1]["text"] == (
        "Page 2 of 61 x 40 pixels\nread upright as sparse\n\nin eng deu"
    )
    assert own["pages"][1]["languages"] == ["en", "de"]
    assert (own["usage"]["pages"], own["usage"]["images"]) == (2, 0)
    for answer in (raw, plain, other.json()):
        for name in ("task", "ocr_model", "info", "text", "pages"):
            assert answer[name] == own[name]
    events = await rest.events("ocr-json")
    assert [event.totals.pages for event in events] == [2] * 4
    assert {event.capability for event in events} == {"image-to-text"}
    assert {event.method.rpartition("/")[2] for event in events} == {"ExtractText"}


@pytest.mark.parametrize("form", FORMS)
async def test_files_have_their_type_and_tell_their_pages(rest, document, form):
    content_type, beginning = FORMS[form]
    accept = {"accept": f"{content_type.partition(';')[0]}, */*;q=0.1"}
    async with rest.client(await rest.key(f"ocr-{form}")) as client:
        tiff = document(3, "TIFF")
        reply = await client.post(f"{PATH}?output={form}&max_pages=2", content=tiff)
        accepted = await client.post(f"{PATH}?max_pages=2", content=tiff, headers=accept)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == content_type
    assert beginning in reply.content[:2000]
    assert reply.headers["x-atrium-model"] == "fake-ocr"
    assert reply.headers["x-atrium-pages"] == "2"
    assert reply.headers["x-atrium-document-pages"] == "3"
    assert "x-ratelimit-remaining-requests" in reply.headers
    assert accepted.headers["content-type"] == content_type
    one, other = await rest.events(f"ocr-{form}")
    assert one.id == reply.headers["x-atrium-id"]
    assert one.totals.pages == other.totals.pages == 2


async def test_output_comes_before_accept_and_json_before_files(rest, picture):
    file = picture()
    async with rest.client(await rest.key("ocr-accept")) as client:

        async def kind(query="", accept="*/*"):
            headers = {"accept": accept}
            reply = await client.post(f"{PATH}{query}", content=file, headers=headers)
            return reply.headers["content-type"].partition(";")[0]

        assert await kind() == "application/json"
        assert await kind(accept="application/json, application/pdf") == "application/json"
        assert await kind(accept="image/png, application/pdf") == "application/pdf"
        assert await kind(accept="text/html, */*") == "text/vnd.hocr+html"
        assert await kind("?output=text", accept="application/pdf") == "text/plain"
        assert await kind("?output=json", accept="application/pdf") == "application/json"
        assert await kind("?stream=true", accept="application/pdf") == "text/event-stream"


async def test_a_document_in_json_is_the_file_of_its_own(rest, picture):
    file = picture()
    async with rest.client(await rest.key("ocr-same")) as client:
        whole = await client.post(f"{PATH}?output=alto", content=file)
        query = "task=ocr&document_format=alto"
        inside = await client.post(f"/api/image-to-text?{query}", content=file)
    told = inside.json()["document"]
    assert told["format"] == "alto"
    assert told["content_type"] == whole.headers["content-type"]
    file = base64.b64decode(told["data"])
    assert len(file) == told["size"]
    words = [re.findall(rb'CONTENT="([^"]+)"', data) for data in (file, whole.content)]
    assert words[0] == words[1]
    assert words[0][:2] == [b"Page", b"1"]


async def test_a_page_without_words_is_an_empty_file(rest, picture):
    async with rest.client(await rest.key("ocr-empty")) as client:
        query = "output=text&min_confidence=1"
        reply = await client.post(f"{PATH}?{query}", content=picture())
        told = await client.post(f"{PATH}?min_confidence=1", content=picture())
    assert (reply.status_code, reply.text.strip()) == (200, "")
    assert reply.headers["x-atrium-pages"] == "1"
    assert (told.json()["text"], told.json()["pages"][0]["lines"]) == ("", [])
