"""Health, what a dead service looks like from outside, and metrics."""

import asyncio

import httpx
import openai
import pytest
from prometheus_client import generate_latest

from atrium_common.catalogue import Catalogue

HELLO = [{"role": "user", "content": "hello"}]


async def _status(client: httpx.AsyncClient, wanted: str) -> httpx.Response:
    async with asyncio.timeout(15):
        while True:
            reply = await client.get("/health")
            if reply.json()["services"]["llm"]["status"] == wanted:
                return reply
            await asyncio.sleep(0.05)


async def test_health_needs_no_credential(rest):
    async with httpx.AsyncClient(base_url=rest.url) as client:
        health = await client.get("/health")
        assert health.status_code == 200
        assert health.json()["status"] == "ok"
        assert (await client.get("/health/live")).json() == {"status": "live"}
        assert (await client.get("/health/ready")).status_code == 200


async def test_killed_service_is_seen_and_found_again(start_rest, llm_on):
    async with start_rest(llm=False) as rest, rest.client(await rest.key("health")) as client:
        catalogue = Catalogue.load(rest.settings.catalogue)
        sdk = rest.openai(await rest.key("health"))
        async with llm_on(catalogue, port=rest.llm_port):
            await _status(client, "ready")
            await sdk.chat.completions.create(model="fake-chat", messages=HELLO, max_tokens=2)
        down = await _status(client, "down")
        assert down.status_code == 503
        assert down.json()["status"] == "degraded"
        assert (await client.get("/health/ready")).status_code == 200
        with pytest.raises(openai.InternalServerError) as refused:
            await sdk.chat.completions.create(model="fake-chat", messages=HELLO)
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
        async with llm_on(catalogue, port=rest.llm_port):
            await _status(client, "ready")
            async with asyncio.timeout(10):
                while True:
                    reply = await client.post("/v1/chat/completions", json={"messages": HELLO})
                    if reply.status_code == 200:
                        break
                    await asyncio.sleep(0.1)
        outcomes = [event.outcome for event in await rest.events("health")]
        assert outcomes[0] == "completed"
        assert outcomes[-1] == "completed"
        assert set(outcomes[1:-1]) <= {"refunded"}


async def test_suite_without_speech_models_needs_no_speech_service(start_rest):
    models = """
models:
  - {id: fake-chat, service: llm, capabilities: [chat], engine: fake, context_length: 8192}
  - {id: fake-whisper, service: stt, capabilities: [transcription], engine: fake}
"""
    async with (
        start_rest(tts=False, pictures=False, models=models) as rest,
        rest.client(await rest.key("health-few")) as client,
    ):
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert set(health.json()["services"]) == {"llm", "stt"}
        speech = await client.post("/v1/audio/speech", json={"input": "a"})
        assert speech.status_code == 404
        assert speech.json()["error"]["code"] == "model_not_found"
        voices = await client.get("/api/voices")
        assert voices.status_code == 503


async def test_health_is_quick_while_requests_run(rest):
    key = await rest.key("health-busy", unlimited=True)
    async with rest.client(key) as client, httpx.AsyncClient(base_url=rest.url) as prober:

        async def work():
            await client.post(
                "/v1/chat/completions",
                json={"model": "fake-slow", "messages": HELLO, "max_tokens": 60},
            )

        running = asyncio.gather(*(work() for _ in range(20)))
        loop = asyncio.get_running_loop()
        times = []
        while not running.done():
            started = loop.time()
            assert (await prober.get("/health")).status_code == 200
            times.append(loop.time() - started)
            await asyncio.sleep(0.01)
        await running
    assert sorted(times)[len(times) // 2] < 0.2


async def test_metrics_count_routes_and_name_no_tenant(rest):
    async with rest.client(await rest.key("health-metrics")) as client:
        await client.get("/v1/models/gpt-4o-mini")
        await client.get("/v1/surely/not/a/path")
    text = generate_latest(rest.registry).decode()
    assert (
        'atrium_http_requests_total{method="GET",route="/v1/models/{model:path}",status="200"}'
        in text
    )
    assert 'route="unmatched"' in text
    assert "surely" not in text
    assert "health-metrics" not in text
