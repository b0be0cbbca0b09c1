"""Over REST, a key holds from its networks, for its models and by its roles alone."""

import dataclasses

from atrium_gateway.auth.keys import key_id_of


async def changed(rest, key, **changes) -> str:
    """Makes a key like `key`, but for `changes`; the only way that rules come to a key."""
    from atrium_gateway.auth.keys import make_key

    made = make_key(rest.settings.resolved_key_pepper())
    kept = await rest.core.tenants.key(key_id_of(key))
    await rest.core.tenants.create_key(
        dataclasses.replace(kept, id=made.id, digest=made.digest, **changes)
    )
    return made.text


async def answer(rest, key, path="/v1/models", **options):
    async with rest.client(key) as client:
        send = client.post if "json" in options else client.get
        return await send(path, **options)


async def test_a_key_is_refused_from_elsewhere_whatever_the_headers_say(rest):
    key = await rest.key("rules-network")
    far = await changed(rest, key, networks=("192.0.2.0/24",))
    near = await changed(rest, key, networks=("127.0.0.0/8",))
    assert (await answer(rest, near)).status_code == 200
    for headers in ({}, {"x-forwarded-for": "192.0.2.1"}, {"forwarded": "for=192.0.2.1"}):
        reply = await answer(rest, far, headers=headers)
        assert reply.status_code == 403
        assert reply.json()["error"]["code"] == "key_network"
    assert (await answer(rest, near, headers={"x-forwarded-for": "192.0.2.1"})).status_code == 200


async def test_a_key_is_refused_models_that_are_not_its_own(rest):
    key = await rest.key("rules-models", unlimited=True)
    bound = await changed(rest, key, models=frozenset({"no-such-model"}))
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    assert (await answer(rest, key, "/v1/chat/completions", json=chat)).status_code == 200
    reply = await answer(rest, bound, "/v1/chat/completions", json=chat)
    assert reply.status_code == 403
    assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (
        "model_not_allowed",
        "model",
    )
    every = [model["id"] for model in (await answer(rest, key)).json()["data"]]
    own = await changed(rest, key, models=frozenset({every[1]}))
    for path, field in (("/v1/models", "data"), ("/api/models", "models")):
        listed = (await answer(rest, own, path)).json()[field]
        assert [model["id"] for model in listed] == [every[1]]
    assert (await answer(rest, own, f"/v1/models/{every[0]}")).status_code == 404


async def test_who_only_views_does_not_work(rest):
    viewer = await rest.key("rules-viewer", roles=("viewer",))
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    reply = await answer(rest, viewer, "/v1/chat/completions", json=chat)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "role_missing")
    assert (await answer(rest, viewer, "/api/usage")).status_code == 200
    assert (await answer(rest, viewer, "/api/voices")).status_code == 403
