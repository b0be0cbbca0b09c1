"""Limits of images, pages and tokens: reserved up to a bound, settled exactly."""

import asyncio

from atrium_gateway.quota.limits import Limit, Unit, Window

PATH = "/api/image-to-text"


def limit(unit, amount):
    return Limit("image-to-text", unit, Window.DAY, amount)


async def test_pages_that_are_left_open_are_read_as_far_as_the_limit_goes(rest, document):
    async with rest.client(await rest.key("pages-open", limit(Unit.PAGES, 5))) as client:
        first = await client.post("/api/ocr", content=document(3, "TIFF"))
        second = await client.post("/api/ocr", content=document(3, "TIFF"))
        third = await client.post("/api/ocr", content=document(3, "TIFF"))
    # Twenty would be reserved; five are, and what was not read is given back.
    assert first.json()["info"]["pages_to_read"] == 3
    assert first.headers["x-ratelimit-limit-pages"] == "5"
    assert second.json()["info"] == {"pages": 3, "pages_to_read": 2, "content_type": "image/tiff"}
    assert len(second.json()["pages"]) == 2
    problem = third.json()
    assert (third.status_code, problem["code"]) == (429, "insufficient_quota")
    assert "pages" in problem["detail"]
    events = await rest.events("pages-open")
    assert [event.totals.pages for event in events] == [3, 2]
    assert [event.reserved["pages"] for event in events] == [5, 2]


async def test_pages_that_are_asked_for_are_read_or_refused(rest, document):
    async with rest.client(await rest.key("pages-asked", limit(Unit.PAGES, 5))) as client:
        for path in ("/api/ocr?max_pages=6", f"{PATH}?task=all&max_pages=6"):
            reply = await client.post(path, content=document(9, "TIFF"))
            assert reply.status_code == 429
            assert "5 pages" in reply.json()["detail"]
        reply = await client.post("/api/ocr?max_pages=5", content=document(9, "TIFF"))
        assert reply.json()["info"]["pages_to_read"] == 5
    (event,) = await rest.events("pages-asked")
    assert event.totals.pages == 5


async def test_a_picture_is_one_page(rest, picture):
    async with rest.client(await rest.key("pages-picture", limit(Unit.PAGES, 3))) as client:
        for shape in ("PNG", "JPEG", "GIF"):
            reply = await client.post("/api/ocr?max_pages=50", content=picture(shape=shape))
            assert reply.status_code == 200, reply.text
        assert (await client.post("/api/ocr", content=picture())).status_code == 429
        # Captions read no page.
        assert (await client.post(PATH, content=picture())).status_code == 200
    events = await rest.events("pages-picture")
    assert [event.totals.pages for event in events] == [1, 1, 1, 0]
    assert [event.reserved.get("pages") for event in events] == [1, 1, 1, None]


async def test_a_budget_holds_for_what_two_models_do_together(rest, picture):
    """The description costs 1, the reading of the page, another model's, 2."""
    for budget, status in ((2_999_999, 429), (3_000_000, 200)):
        tenant = f"seeing-budget-{status}"
        async with rest.client(await rest.key(tenant, limit(Unit.COST, budget))) as client:
            reply = await client.post(f"{PATH}?task=all", content=picture())
        assert reply.status_code == status, reply.text
    events = await rest.events(tenant)
    assert sum(event.totals.cost for event in events) == 3


async def test_a_limit_of_images_holds_under_many_at_once(rest, picture):
    async with rest.client(await rest.key("seeing-images-limit", limit(Unit.IMAGES, 3))) as client:
        replies = await asyncio.gather(*(client.post(PATH, content=picture()) for _ in range(6)))
        assert sorted(reply.status_code for reply in replies) == [200] * 3 + [429] * 3
        # Reading text takes no image.
        assert (await client.post("/api/ocr", content=picture())).status_code == 200
        assert (await client.post(f"{PATH}?task=all", content=picture())).status_code == 429
    events = await rest.events("seeing-images-limit")
    assert sum(event.totals.images for event in events) == 3


async def test_what_three_questions_may_take_is_reserved(rest, picture):
    form = {"task": "vqa", "questions": ["a", "b", "c"], "max_tokens": 100}
    async with rest.client(await rest.key("tokens-limit", limit(Unit.TOKENS, 18_000))) as client:
        reply = await client.post(PATH, data=form, files={"file": picture()})
        large = form | {"max_tokens": 2048}
        refused = await client.post(PATH, data=large, files={"file": picture()})
    assert reply.status_code == 200, reply.text
    assert (refused.status_code, refused.json()["code"]) == (429, "insufficient_quota")
    usage = reply.json()["usage"]
    (event,) = await rest.events("tokens-limit")
    assert event.reserved["output_tokens"] == 300
    assert 3 * 4096 < event.reserved["input_tokens"] < 3 * 8192
    assert event.totals.output_tokens == usage["output_tokens"] < 300
    assert event.totals.input_tokens == usage["input_tokens"] < 100


async def test_a_credential_for_something_else_is_refused(rest, picture):
    await rest.key("seeing-scope")
    narrow = rest.token("seeing-scope", scopes=frozenset({"chat"}))
    wide = rest.token("seeing-scope", scopes=frozenset({"image-to-text"}))
    async with rest.client(narrow) as client:
        for path in (PATH, "/api/ocr", f"{PATH}?task=all"):
            reply = await client.post(path, content=picture())
            assert (reply.status_code, reply.json()["code"]) == (403, "scope_missing")
    async with rest.client(wide) as client:
        # Reading counts as seeing; there is no scope of its own.
        assert (await client.post("/api/ocr", content=picture())).status_code == 200
    async with rest.client("nonsense") as client:
        assert (await client.post(PATH, content=picture())).status_code == 401


async def test_models_of_other_services_that_see_are_not_these_endpoints(start_rest, picture):
    models = """
models:
  - {id: fake-chat, service: llm, capabilities: [chat, image-to-text], engine: fake}
  - {id: fake-whisper, service: stt, capabilities: [transcription], engine: fake}
"""
    async with (
        start_rest(tts=False, pictures=False, models=models) as rest,
        rest.client(await rest.key("seeing-none")) as client,
    ):
        for path in (PATH, f"{PATH}?model=fake-chat", "/api/ocr"):
            reply = await client.post(path, content=picture())
            assert (reply.status_code, reply.json()["code"]) == (404, "model_not_found")
        details = (await client.get("/api/models")).json()["models"]
        assert "img2text" not in (await client.get("/health")).json()["services"]
    assert details[0]["default_for"] == ["chat"]
