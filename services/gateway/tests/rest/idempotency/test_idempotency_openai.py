"""The official client with keys: what it sends, and that its retries cost nothing."""

import httpx
from openai import AsyncOpenAI

SAID = [{"role": "user", "content": "hello there"}]


class LosesFirst(httpx.AsyncBaseTransport):
    """A network that loses the answer to each first try, after the work is done."""

    def __init__(self):
        self._real = httpx.AsyncHTTPTransport()
        self.sent = []

    async def handle_async_request(self, request):
        reply = await self._real.handle_async_request(request)
        self.sent.append((request, await reply.aread()))
        if len(self.sent) % 2:
            raise httpx.ReadError("the connection broke", request=request)
        return reply

    async def aclose(self):
        await self._real.aclose()


def client_of(rest, key, network):
    client = AsyncOpenAI(
        base_url=f"{rest.url}/v1",
        api_key=key,
        max_retries=2,
        http_client=httpx.AsyncClient(transport=network),
    )
    rest.closing.push_async_callback(client.close)
    return client


def keys_of(network):
    return [request.headers.get("idempotency-key") for request, _ in network.sent]


async def test_by_default_it_sends_no_key_and_a_retry_is_charged(rest):
    network = LosesFirst()
    client = client_of(rest, await rest.key("openai-keyless"), network)
    await client.chat.completions.create(model="fake-chat", messages=SAID)
    assert keys_of(network) == [None, None]
    assert len(await rest.events("openai-keyless")) == 2


async def test_a_key_given_as_a_header_makes_its_retries_safe(rest):
    network = LosesFirst()
    client = client_of(rest, await rest.key("openai-header"), network)
    answer = await client.chat.completions.create(
        model="fake-chat", messages=SAID, extra_headers={"Idempotency-Key": "order-1"}
    )
    assert keys_of(network) == ["order-1"] * 2
    assert network.sent[0][1] == network.sent[1][1]
    assert answer.choices[0].message.content
    assert len(await rest.events("openai-header")) == 1


async def test_keys_of_its_own_and_a_form_that_is_encoded_again(rest, recording):
    network = LosesFirst()
    client = client_of(rest, await rest.key("openai-own"), network)
    client._idempotency_header = "Idempotency-Key"  # as clients of the same maker set it
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", recording), response_format="verbose_json"
    )
    first, second = keys_of(network)
    assert first == second != None  # noqa: E711 - one comparison for both
    assert answer.duration == 12.0
    assert network.sent[0][1] == network.sent[1][1]
    await client.chat.completions.create(model="fake-chat", messages=SAID)
    assert len(set(keys_of(network))) == 2
    assert len(await rest.events("openai-own")) == 2


async def test_a_stream_is_replayed_event_by_event(rest):
    network = LosesFirst()
    client = client_of(rest, await rest.key("openai-stream"), network)
    stream = await client.chat.completions.create(
        model="fake-chat", messages=SAID, stream=True, extra_headers={"Idempotency-Key": "s"}
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text
    assert network.sent[0][1] == network.sent[1][1]
    assert len(await rest.events("openai-stream")) == 1
