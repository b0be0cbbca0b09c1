"""Results that arrive when they are ready, and how a stream ends that breaks."""

import asyncio
import base64

import httpx
import pytest

from atrium_common.errors import Unavailable
from atrium_gateway.api import ocr

PATH = "/api/image-to-text"


async def test_captions_and_answers_as_events(rest, picture, named_events, of_kind):
    file = {"file": picture()}
    async with rest.client(await rest.key("seeing-events")) as client:
        caption = await client.post(f"{PATH}?stream=true", data={"n": 2, "beams": 2}, files=file)
        form = {"task": "vqa", "question": "what is this", "stream": "true"}
        answer = await client.post(PATH, data=form, files=file)
        body = {"task": "vqa", "questions": ["a", "b"], "stream": True}
        several = await client.post(
            PATH, json=body | {"image": base64.b64encode(file["file"]).decode()}
        )
    assert caption.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "x-ratelimit-remaining-requests" in caption.headers
    told = named_events(caption.text)
    assert [name for name, _ in told] == ["info", "caption", "caption", "done"]
    assert told[0][1] == {"task": "caption", "model": "fake-vision"}
    assert [one["index"] for one in of_kind(told, "caption")] == [0, 1]
    told = named_events(answer.text)
    whole = of_kind(told, "answer")[0]
    deltas = of_kind(told, "delta")
    assert {one["index"] for one in deltas} == {0}
    assert len(deltas) > 1
    assert "".join(one["text"] for one in deltas) == whole["text"]
    assert (whole["question"], whole["finish_reason"]) == ("what is this", "stop")
    done = told[-1]
    assert done[0] == "done"
    assert done[1]["usage"]["output_tokens"] == len(whole["text"].split())
    told = named_events(several.text)
    assert sorted(one["question"] for one in of_kind(told, "answer")) == ["a", "b"]
    assert of_kind(told, "delta") == []
    ids = [event.id for event in await rest.events("seeing-events")]
    assert done[1]["id"] in ids


async def test_pages_and_the_document_as_events(rest, document, named_events, of_kind):
    query = "task=all&stream=true&document_format=pdf&question=why"
    async with rest.client(await rest.key("seeing-page-events")) as client:
        told = named_events((await client.post(f"{PATH}?{query}", content=document(3))).text)
        own = named_events((await client.post("/api/ocr?stream=true", content=document(2))).text)
    models = {"model": "fake-vision", "ocr_model": "fake-ocr"}
    assert told[0] == ("info", {"task": "all"} | models)
    info = {"pages": 3, "pages_to_read": 3, "content_type": "application/pdf"}
    assert of_kind(told, "opened") == [info]
    assert [page["number"] for page in of_kind(told, "page")] == [1, 2, 3]
    assert [len(of_kind(told, kind)) for kind in ("caption", "answer", "document")] == [1, 1, 1]
    (file,) = of_kind(told, "document")
    assert base64.b64decode(file["data"]).startswith(b"%PDF")
    done = told[-1][1]
    assert [part["model"] for part in done["usage_by_model"]] == ["fake-vision", "fake-ocr"]
    assert [name for name, _ in own] == ["info", "opened", "page", "page", "done"]
    assert own[0][1] == {"task": "ocr", "ocr_model": "fake-ocr"}


async def test_a_page_is_sent_before_the_next_is_read(rest, document):
    """The engine is held at the second page: the first one has arrived by then."""
    seen, held = asyncio.Event(), asyncio.Event()
    real = rest.seeing_engine.read

    async def halting(page, order):
        if page.number == 2:
            seen.set()
            await held.wait()
        return await real(page, order)

    async with rest.client(await rest.key("seeing-early")) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rest.seeing_engine, "read", halting)
            request = client.stream(
                "POST", "/api/ocr?stream=true", content=document(2, "TIFF"), timeout=20
            )
            async with request as reply:
                lines = reply.aiter_lines()
                names = []
                while "page" not in names:
                    line = await anext(lines)
                    names += [line.removeprefix("event: ")] * line.startswith("event: ")
                await seen.wait()
                held.set()
                rest_of = [line async for line in lines if line.startswith("event: ")]
    assert names == ["info", "opened", "page"]
    assert rest_of == ["event: page", "event: done"]


@pytest.fixture
def break_off(rest, monkeypatch):
    """Makes the engine fail at a page or a word, and leaves the rest as it is."""

    def set_up(at: int) -> None:
        real_read, real_answer = rest.seeing_engine.read, rest.seeing_engine.answer

        async def read(page, order):
            if page.number == at:
                raise Unavailable("The engine fell over.")
            return await real_read(page, order)

        async def answer(job):
            count = 0
            async for event in real_answer(job):
                if count == at:
                    raise Unavailable("The engine fell over.")
                count += 1
                yield event

        monkeypatch.setattr(rest.seeing_engine, "read", read)
        monkeypatch.setattr(rest.seeing_engine, "answer", answer)

    return set_up


async def test_what_breaks_is_an_error_answer_or_the_last_event(
    rest, document, picture, named_events, break_off
):
    break_off(3)
    asked = {"task": "vqa", "question": "what is this thing"}
    async with rest.client(await rest.key("seeing-broken", unlimited=True)) as client:
        for query in ("", "?output=text"):
            whole = await client.post(f"/api/ocr{query}", content=document(4, "TIFF"))
            assert (whole.status_code, whole.json()["code"]) == (503, "unavailable")
        stream = await client.post("/api/ocr?stream=true", content=document(4, "TIFF"))
        told = named_events(stream.text)
        assert [name for name, _ in told] == ["info", "opened", "page", "page", "error"]
        assert told[-1][1]["status"] == 503
        stream = await client.post(f"{PATH}?stream=true", data=asked, files={"file": picture()})
        name, problem = named_events(stream.text)[-1]
        assert (name, problem["code"]) == ("error", "unavailable")
    events = await rest.events("seeing-broken")
    assert {event.outcome for event in events} == {"failed"}
    # Two pages were read, and are charged, perhaps the fourth too, which nobody waits with;
    # of the answer, two words.
    assert {event.totals.pages for event in events[:-1]} <= {2, 3}
    assert events[-1].totals.output_tokens == 2


async def test_a_file_that_breaks_is_never_taken_for_whole(rest, document, monkeypatch):
    """The status has been sent when the document's end turns out to be wrong."""

    class Doubting(ocr.Findings):
        def check(self):
            raise Unavailable("The service ended too early.")

    monkeypatch.setattr(ocr, "Findings", Doubting)
    async with rest.client(await rest.key("seeing-file-broken")) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/api/ocr?output=pdf", content=document(1, "TIFF"))
