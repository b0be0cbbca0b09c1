"""Limits over HTTP: plans that change while the gateway runs, headers, refusals that say why."""

import asyncio
from datetime import timedelta

import openai
import pytest

from atrium_common.errors import AtriumError
from atrium_gateway.quota.limits import Limit, Unit, Window

CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
LONGER = {**CHAT, "model": "fake-slow", "max_tokens": 4}
"""Takes a hundredth of a second."""
NOTICED = 1.0
"""Seconds within which a running gateway sees a change."""


async def chat(client):
    return await client.post("/v1/chat/completions", json=CHAT)


async def test_plans_change_hands_while_the_gateway_runs(rest):
    async with rest.client(await rest.key("planned")) as client:
        assert (await chat(client)).headers["x-ratelimit-limit-requests"] == "100"
        await rest.core.tenants.set_plan("planned", "free")
        await asyncio.sleep(NOTICED)
        replies = [await chat(client) for _ in range(11)]
        assert [reply.status_code for reply in replies] == [200] * 10 + [429]
        headers = replies[0].headers
        assert headers["x-ratelimit-limit-requests"] == "10"
        assert headers["x-ratelimit-limit-tokens"] == "100000"
        await rest.core.tenants.set_plan("planned", "pro")
        await asyncio.sleep(NOTICED)
        after = await chat(client)
        assert after.headers["x-ratelimit-limit-requests"] == "100"
        assert int(after.headers["x-ratelimit-remaining-requests"]) in (89, 90)  # it counts on
        await rest.core.tenants.set_limit("planned", Limit("*", Unit.REQUESTS, Window.MINUTE, 5))
        await asyncio.sleep(NOTICED)
        assert (await chat(client)).status_code == 429


async def test_a_plans_limits_hold_at_once_for_every_tenant_on_it(rest):
    await rest.core.tenants.put_plan("tiny", "Tiny")
    keys = [await rest.key(tenant) for tenant in ("tiny-a", "tiny-b")]
    for tenant in ("tiny-a", "tiny-b"):
        await rest.core.tenants.set_plan(tenant, "tiny")
    one = Limit("chat", Unit.REQUESTS, Window.DAY, 1)
    await rest.core.tenants.set_plan_limit("tiny", one)
    await asyncio.sleep(NOTICED)
    for key in keys:
        async with rest.client(key) as client:
            assert [(await chat(client)).status_code for _ in range(2)] == [200, 429]
    await rest.core.tenants.remove_plan_limit(
        "tiny", selector="chat", unit=Unit.REQUESTS, window=Window.DAY
    )
    await asyncio.sleep(NOTICED)
    async with rest.client(keys[0]) as client:
        reply = await chat(client)
        assert reply.status_code == 200
        assert "ratelimit" not in reply.headers


async def test_headers_tell_every_limit_and_openais_the_tightest(rest):
    key = await rest.key(
        "headed",
        Limit("*", Unit.REQUESTS, Window.MINUTE, 100),
        Limit("model:fake-chat", Unit.REQUESTS, Window.DAY, 10),
        Limit("*", Unit.COST, Window.MONTH, 2_500_000),
        Limit("chat", Unit.REQUESTS, Window.HOUR, None),
    )
    async with rest.client(key) as client:
        headers = (await chat(client)).headers
    assert headers["x-ratelimit-limit-requests"] == "10"
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert headers["x-ratelimit-limit-cost"] == "2.5"
    assert headers["ratelimit-policy"].split(", ") == [
        '"tenant:model:fake-chat:requests:day";q=10;w=86400',
        '"tenant:*:requests:minute";q=100;w=60',
        '"tenant:*:cost:month";q=2500000;w=2592000',
    ]
    states = [state.rsplit(";t=", 1) for state in headers["ratelimit"].split(", ")]
    assert [state for state, _ in states] == [
        '"tenant:model:fake-chat:requests:day";r=9',
        '"tenant:*:requests:minute";r=99',
        '"tenant:*:cost:month";r=2500000',
    ]
    assert int(states[1][1]) == 1
    assert 0 < int(states[0][1]) <= 25 * 3600


async def test_a_key_and_a_user_have_limits_of_their_own(rest):
    first, second = [await rest.key("scoped") for _ in range(2)]
    one = Limit("*", Unit.REQUESTS, Window.MONTH, 1)
    tenants = rest.core.tenants
    await tenants.set_limit("scoped", one, subject="key:" + first.split("_")[1])
    await tenants.set_limit("scoped", one, subject="user:someone")
    await asyncio.sleep(NOTICED)
    for credential, expected in (
        (first, [200, 429]),
        (second, [200, 200]),
        (rest.token("scoped"), [200, 429]),
    ):
        async with rest.client(credential) as client:
            assert [(await chat(client)).status_code for _ in range(2)] == expected


@pytest.mark.parametrize(
    ("window", "code", "retried"),
    [(Window.HOUR, "rate_limit_exceeded", None), (Window.MONTH, "insufficient_quota", "false")],
)
async def test_a_refusal_names_limit_window_scope_and_when_to_come_back(
    rest, window, code, retried
):
    tenant = f"refused-{window}"
    key = await rest.key(tenant, Limit("*", Unit.REQUESTS, window, 1))
    client = rest.openai(key)
    await client.chat.completions.create(**CHAT)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**CHAT)
    assert caught.value.code == code
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    message = caught.value.body["message"]
    assert f"limit of 1 requests per {window} (tenant:{tenant})" in message
    assert "There is room for it at 2" in message
    headers = caught.value.response.headers
    assert headers.get("x-should-retry") == retried
    assert int(headers["retry-after"]) >= 1
    assert headers["ratelimit"].startswith(f'"tenant:*:requests:{window}";r=0;t=')

    async with rest.client(key) as client:
        reply = await client.post("/api/text-to-speech", json={"text": "hello"})
    assert reply.status_code == 429
    problem = reply.json()
    assert problem["code"] == code
    (limit,) = problem["limits"]
    assert limit.pop("room_at").startswith("2")
    assert limit == {
        "name": f"tenant:*:requests:{window}",
        "scope": f"tenant:{tenant}",
        "unit": "requests",
        "window": str(window),
        "limit": 1,
        "remaining": 0,
    }


async def test_the_devices_time_counts_once_it_is_known(rest):
    lifted = Limit("*", Unit.REQUESTS, Window.HOUR, None)
    time = Limit("*", Unit.GPU_MILLISECONDS, Window.DAY, 20)
    async with rest.client(await rest.key("device-time", lifted, time)) as client:
        replies = []
        while not replies or replies[-1].status_code == 200:
            replies.append(await client.post("/v1/chat/completions", json=LONGER))
    assert replies[0].headers["ratelimit"].startswith('"tenant:*:gpu_milliseconds:day";r=19;')
    assert replies[-1].json()["error"]["code"] == "insufficient_quota"
    events = await rest.settled("device-time", len(replies) - 1)
    spent = [event.totals.inference_time for event in events]
    assert sum(spent, timedelta()) >= timedelta(milliseconds=20)
    assert sum(spent[:-1], timedelta()) < timedelta(milliseconds=20)


PRICED = """
models:
  - id: fake-chat
    service: llm
    capabilities: [chat]
    engine: fake
    context_length: 8192
    price: {million_input_tokens: 1, million_output_tokens: 1000}
  - {id: fake-whisper, service: stt, capabilities: [transcription], engine: fake}
"""


async def test_an_open_ended_answer_is_as_long_as_the_budget_pays_for(start_rest):
    async with start_rest(models=PRICED, tts=False, pictures=False) as rest:
        budget = Limit("*", Unit.COST, Window.MONTH, 5_100)  # 5 tokens of output, 100 of input
        client = rest.openai(await rest.key("budgeted", budget))
        answer = await client.chat.completions.create(
            model="fake-chat", messages=[{"role": "user", "content": "one two three " * 20}]
        )
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 5
        (event,) = await rest.events("budgeted")
        assert event.totals.cost * 1_000_000 == 5_000 + answer.usage.prompt_tokens
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="fake-chat", messages=CHAT["messages"])
        assert caught.value.code == "insufficient_quota"
        assert "limit of 0.0051 cost per month" in caught.value.body["message"]


async def test_a_plan_that_is_not_there_is_refused(rest):
    await rest.key("planless")
    with pytest.raises(AtriumError, match="does not exist"):
        await rest.core.tenants.set_plan("planless", "platinum")
