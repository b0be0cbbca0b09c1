"""A tenant is deleted over REST by its owner, and by the command line: voices, keys and all."""

import asyncio
import io
import json
import math
import wave


def tone(seconds, *, rate=16_000):
    """A recording with something to hear."""
    cycle = b"".join(
        int(12_000 * math.sin(2 * math.pi * at / 80)).to_bytes(2, "little", signed=True)
        for at in range(80)
    )
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(cycle * (seconds * rate // 80))
    return file.getvalue()


async def test_an_owner_exports_and_deletes_their_tenant(rest):
    owner = await rest.key("del-mine", roles=("owner",))
    async with rest.client(owner) as client:
        files = {"file": ("me.wav", tone(8))}
        data = {"name": "Mine", "consent": "true"}
        voice = (await client.post("/api/voices", data=data, files=files)).json()["id"]
        await client.post("/v1/embeddings", json={"model": "fake-embedding", "input": "a"})
        await rest.settled("del-mine", 2)
        assert kept_of(rest, voice)
        export = await client.get("/api/tenants/del-mine/export")
        assert export.headers["content-type"] == "application/jsonl"
        kinds = [json.loads(line)["kind"] for line in export.text.splitlines()]
        assert kinds == ["tenant", "key", "usage_event", "usage_event"]
        gone = await client.delete("/api/tenants/del-mine")
        assert gone.status_code == 200
        assert gone.json()["deleted"] is True
        assert (rest.settings.exports_dir / gone.json()["export"]).exists()
        await asyncio.sleep(1.0)
        assert (await client.get("/api/usage")).status_code == 401
    assert await rest.events("del-mine") == []
    assert len(await rest.events(gone.json()["alias"])) == 2
    operator = await rest.key("del-house", roles=("operator",))
    async with rest.client(operator) as client:
        again = await client.post("/api/tenants", json={"id": "del-mine"})
        assert again.status_code == 409
        assert (await client.delete("/api/tenants/del-nobody")).status_code == 404
        repeated = await client.delete("/api/tenants/del-mine")
        assert repeated.json() == gone.json()
    assert not kept_of(rest, voice)


def kept_of(rest, voice):
    """Files of the tts service that belong to a voice."""
    return list(rest.settings.state_dir.parent.rglob(f"*{voice}*"))
