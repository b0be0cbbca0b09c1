"""Attempts to make the gateway fetch what it must not, over REST: named, uncharged, harmless."""

import pytest
from egress_web import OPEN, TRAP, Names, ok

CHAT_FIELD = "messages[0].content[1].image_url.url"


def conversation(url: str) -> dict:
    parts = [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": parts}], "model": "fake-vision"}


@pytest.fixture
async def gateway(start_rest, web, fetcher, picture):
    """A gateway that may fetch from `files.test`, `inner.test` and `turning.test`."""
    names = Names(
        files_test=[[OPEN]], inner_test=[[TRAP]], turning_test=[[OPEN], [TRAP], [OPEN], [TRAP]]
    )
    hosts = [f"{name}.test:{web.port}" for name in ("files", "inner", "turning")]
    # As if it were listed by mistake: the address is what counts.
    hosts += [f"[::1]:{web.port}", f"[::ffff:7f00:2]:{web.port}", f"127.0.0.2:{web.port}"]
    web.answers["/a.png"] = ok(picture, "Content-Type: image/png")
    web.redirect("/away", f"http://inner.test:{web.port}/secret")
    web.redirect("/turn", "/a.png")
    async with start_rest(fetcher=fetcher(*hosts, names=names)) as rest:
        yield rest


async def test_hostile_addresses_are_named_and_cost_nothing(gateway, web):
    bad = {
        web.url("/away"): "url_not_allowed",
        web.url("/a.png", host="inner.test"): "url_not_allowed",
        web.url("/turn", host="turning.test"): "url_not_allowed",
        web.url("/a.png", host="[::1]"): "url_not_allowed",
        web.url("/a.png", host="[::ffff:127.0.0.2]"): "url_not_allowed",
        web.url("/a.png", host="127.0.0.2"): "url_not_allowed",
        web.url("/a.png", host="2130706434"): "url_not_allowed",
        web.url("/a.png", host="files.test@127.0.0.2"): "url_not_allowed",
        "file:///etc/passwd": "url_not_allowed",
        "gopher://files.test/": "url_not_allowed",
        "http://169.254.169.254/latest/meta-data/": "url_not_allowed",
        "http://files.test:1/": "url_not_allowed",
    }
    async with gateway.client(await gateway.key("hostile")) as client:
        for url, code in bad.items():
            reply = await client.post("/v1/chat/completions", json=conversation(url))
            error = reply.json()["error"]
            assert (reply.status_code, error["param"], error["code"]) == (400, CHAT_FIELD, code)
            reply = await client.post("/api/image-to-text", json={"image_url": url})
            problem = reply.json()
            assert (reply.status_code, problem["field"], problem["code"]) == (
                400,
                "image_url",
                code,
            )
        assert web.trapped == 0
        assert await gateway.events("hostile") == []
        # It goes on serving those that may be fetched.
        good = web.url("/a.png")
        reply = await client.post("/v1/chat/completions", json=conversation(good))
        assert "64 x 48 pixels" in reply.json()["choices"][0]["message"]["content"]
        assert (await client.get("/health/ready")).status_code == 200
    assert len(await gateway.events("hostile")) == 1
