"""`/api/image-to-text`: three ways in, every parameter, every task, and what each costs."""

import base64
import hashlib
import json
from urllib.parse import urlencode

import pytest

SEEN = "64 x 48 pixels, mean colour #7d7c37"
"""What the fake engine makes of the gradient."""
PATH = "/api/image-to-text"


async def test_three_ways_in_have_one_answer(rest, picture):
    file = picture()
    text = base64.b64encode(file).decode()
    parameters = {"task": "vqa", "question": "what is this", "max_tokens": 5, "seed": 3}
    history = [{"question": "hm", "answer": "oh"}]
    async with rest.client(await rest.key("seeing-ways")) as client:
        form = await client.post(
            PATH, data=parameters | {"history": json.dumps(history)}, files={"file": file}
        )
        query = urlencode(parameters | {"history": json.dumps(history)})
        raw = await client.post(f"{PATH}?{query}", content=file)
        typed = {"content-type": "image/png"}
        declared = await client.post(f"{PATH}?{query}", content=file, headers=typed)
        body = parameters | {"history": history}
        plain = await client.post(PATH, json=body | {"image": text})
        url = await client.post(PATH, json=body | {"image": f"data:image/png;base64,{text}"})
    answers = [reply.json() for reply in (form, raw, declared, plain, url)]
    for answer in answers:
        assert (answer["task"], answer["model"]) == ("vqa", "fake-vision")
        assert answer["answers"] == [
            {
                "index": 0,
                "question": "what is this",
                "text": "what is this - 64",
                "finish_reason": "length",
            }
        ]
        # The picture counts as 16, each of the five words of the texts as one.
        usage = answer["usage"]
        assert (usage["images"], usage["pages"], usage["output_tokens"]) == (1, 0, 5)
        assert usage["input_tokens"] == 21
        assert "usage_by_model" not in answer
    assert len({answer["id"] for answer in answers}) == 5


async def test_a_caption_is_what_is_asked_for_without_a_task(rest, picture):
    async with rest.client(await rest.key("seeing-caption")) as client:
        reply = await client.post(PATH, files={"file": picture()})
        used = (await client.get("/api/usage")).json()["totals"]
    answer = reply.json()
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert answer["captions"] == [
        {"index": 0, "text": f"a picture of {SEEN}", "average_logprob": -0.1}
    ]
    assert set(answer) == {"id", "task", "model", "captions", "usage"}
    (event,) = await rest.events("seeing-caption")
    assert (event.id, event.outcome) == (answer["id"], "completed")
    assert (event.capability, event.model) == ("image-to-text", "fake-vision")
    assert event.method == "/atrium.img2text.v1.ImageUnderstandingService/DescribeImage"
    assert event.reserved["images"] == 1
    assert event.reserved["output_tokens"] == 64
    assert float(used["cost"]) == 1  # a picture, by the catalogue


async def test_every_parameter_of_a_caption_arrives(rest, picture):
    fields = {"n": 2, "temperature": 0.5, "seed": 7, "model": "gpt-4o", "max_tokens": 300}
    async with rest.client(await rest.key("seeing-options")) as client:
        named = await client.post(PATH, data=fields | {"prefix": "look"}, files={"file": picture()})
        prompt = await client.post(
            PATH, data=fields | {"prompt": "look"}, files={"file": picture()}
        )
        beams = await client.post(
            f"{PATH}?beams=3&n=3&top_p=0.5&repetition_penalty=1.5", content=picture()
        )
    captions = named.json()["captions"]
    assert [caption["text"] for caption in captions] == [
        f"a picture of {SEEN}, after 'look', number {index}, seed 7, temperature 0.5"
        for index in (0, 1)
    ]
    assert prompt.json()["captions"] == captions
    assert len(beams.json()["captions"]) == 3
    assert beams.json()["captions"][2]["text"].endswith("number 2, beams 3")


async def test_several_questions_share_an_upload(rest, picture):
    form = {"task": "vqa", "questions": ["how many", "which colour"], "instructions": "be brief"}
    async with rest.client(await rest.key("seeing-questions")) as client:
        answer = (await client.post(PATH, data=form, files={"file": picture()})).json()
        single = form | {"questions": ["how many"]}
        one = (await client.post(PATH, data=single, files={"file": picture()})).json()
    told = [(one["index"], one["question"], one["text"]) for one in answer["answers"]]
    assert told == [
        (index, question, f"{question} - {SEEN}, told 'be brief'")
        for index, question in enumerate(form["questions"])
    ]
    assert one["answers"] == answer["answers"][:1]
    assert answer["usage"]["images"] == 1
    events = await rest.events("seeing-questions")
    assert [event.method.rpartition("/")[2] for event in events] == [
        "AnalyzeImage",
        "AnswerQuestion",
    ]


async def test_all_of_it_in_one_upload_is_charged_by_model(rest, document):
    query = {
        "task": "all",
        "question": "what is it",
        "languages": "eng",
        "layout": "single_block",
        "correct_orientation": "false",
        "document_format": "text",
        "first_page": 2,
        "max_pages": 2,
        "resolution": 72,
        "min_confidence": 0.1,
        "ocr_model": "fake-ocr",
    }
    async with rest.client(await rest.key("seeing-all")) as client:
        reply = await client.post(f"{PATH}?{urlencode(query)}", content=document(4))
        used = (await client.get("/api/usage")).json()["totals"]
    answer = reply.json()
    assert (answer["model"], answer["ocr_model"]) == ("fake-vision", "fake-ocr")
    assert answer["captions"][0]["text"].startswith("a picture of 167 x 112 pixels")
    assert answer["answers"][0]["text"].startswith("what is it - 167 x 112 pixels")
    info = {"pages": 4, "pages_to_read": 2, "content_type": "application/pdf"}
    assert answer["info"] == info
    pages = answer["pages"]
    assert [page["number"] for page in pages] == [2, 3]
    assert [(page["width"], page["height"]) for page in pages] == [(61, 40), (62, 40)]
    assert pages[0]["text"] == ("Page 2 of 61 x 40 pixels\nread as it is as single_block\n\nin eng")
    assert answer["text"] == f"{pages[0]['text']}\f{pages[1]['text']}"
    assert (pages[0]["script"], pages[0]["languages"]) == ("Latn", ["en"])
    line = pages[0]["lines"][0]
    assert line["text"] == " ".join(word["text"] for word in line["words"])
    assert set(line["box"]) == {"x", "y", "width", "height"}
    assert min(word["confidence"] for line in pages[0]["lines"] for word in line["words"]) >= 0.1
    told = answer["document"]
    data = base64.b64decode(told["data"])
    assert (told["format"], told["content_type"]) == ("text", "text/plain; charset=utf-8")
    assert (told["size"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert data.decode().replace("\n\f", "\f").rstrip() == answer["text"]
    # Each model is charged its own part: a picture for 1, two pages for 2 each.
    parts = answer["usage_by_model"]
    assert [(part["model"], part["images"], part["pages"]) for part in parts] == [
        ("fake-vision", 1, 0),
        ("fake-ocr", 0, 2),
    ]
    whole = answer["usage"]
    for unit in ("images", "pages", "input_tokens", "output_tokens"):
        assert whole[unit] == sum(part[unit] for part in parts)
    assert float(used["cost"]) == 5
    assert (used["requests"], used["images"], used["pages"]) == (1, 1, 2)
    events = {event.model: event for event in await rest.events("seeing-all")}
    assert set(events) == {"fake-vision", "fake-ocr"}
    assert events["fake-vision"].id == answer["id"]
    assert events["fake-vision"].reserved["pages"] == 2


async def test_all_without_questions_or_a_document_captions_and_reads(rest, picture):
    async with rest.client(await rest.key("seeing-all-plain")) as client:
        answer = (await client.post(PATH, data={"task": "all"}, files={"file": picture()})).json()
    assert answer["captions"][0]["text"] == f"a picture of {SEEN}"
    assert answer["info"] == {"pages": 1, "pages_to_read": 1, "content_type": "image/png"}
    assert answer["pages"][0]["text"].startswith("Page 1 of 64 x 48 pixels")
    assert not {"answers", "document"} & set(answer)


async def test_models_tell_what_they_read_and_for_what_they_are_the_default(rest):
    async with rest.client(await rest.key("seeing-models")) as client:
        details = (await client.get("/api/models")).json()["models"]
        services = (await client.get("/health")).json()["services"]
    models = {model["id"]: model for model in details}
    reading = models["fake-ocr"]["reading"]
    assert (reading["languages"], reading["max_pages"]) == (["deu", "eng", "fra"], 100)
    assert models["fake-ocr"]["default_for"] == ["ocr"]
    assert models["fake-vision"]["default_for"] == ["image-to-text"]
    assert models["fake-slow-vision"]["default_for"] == []
    assert models["fake-vision"]["reading"] is None
    assert services["img2text"]["capabilities"] == ["image-to-text", "ocr"]


@pytest.mark.parametrize("shape", ["JPEG", "WEBP", "BMP", "GIF", "TIFF"])
async def test_formats_are_found_by_their_content(rest, picture, shape):
    async with rest.client(await rest.key("seeing-formats")) as client:
        file = ("nothing.bin", picture(shape=shape), "application/octet-stream")
        reply = await client.post(PATH, files={"file": file})
    assert "64 x 48 pixels" in reply.json()["captions"][0]["text"], reply.text
