"""Who leaves before a whole answer has come pays for exactly what was made of it.

Such an answer is one message, which never arrives: the gateway asks the service instead.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta

import grpc
import httpx
import pytest

from atrium_common.catalogue import Catalogue
from atrium_common.channels import open_channel
from atrium_common.domain import Capability, Usage
from atrium_common.errors import Unavailable
from atrium_common.testing import CREDENTIAL
from atrium_gateway import pipeline
from atrium_gateway.pipeline import Job, Pipeline
from atrium_gateway.upstreams.calls import Credentials
from atrium_gateway.upstreams.inquiry import UsageInquiry
from atrium_gateway.upstreams.llm import GENERATE, GENERATE_WHOLE, LlmUpstream
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.text import Conversation, Generation, Message, Sampling

SLOW = {"model": "fake-slow", "messages": [{"role": "user", "content": "hello there"}]}
SLOW_MODEL = """
models:
  - {id: fake-slow, service: llm, capabilities: [chat, completion], engine: fake,
     context_length: 8192,
     options: {reply_tokens: 300, tokens_per_step: 1, tokens_per_second: 300}}
"""
CALLS = 8


async def test_what_was_made_is_charged_to_the_token(rest, until):
    key = await rest.key("leaving-whole", unlimited=True)
    await until(lambda: not rest.llm_engine.running)
    before = rest.llm_engine.steps
    async with rest.client(key) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=SLOW))
        await until(lambda: rest.llm_engine.steps > before + 20)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    (event,) = await rest.settled("leaving-whole", 1)
    made = rest.llm_engine.steps - before
    assert not rest.llm_engine.running
    assert (event.outcome, event.estimated) == ("cancelled", False)
    assert event.totals.output_tokens == made > 20
    assert event.totals.input_tokens > 0
    assert event.method == GENERATE_WHOLE


async def test_what_was_made_until_the_deadline_is_charged(rest, monkeypatch):
    monkeypatch.setitem(pipeline.DEADLINES, Capability.CHAT, timedelta(seconds=0.4))
    key = await rest.key("leaving-late", unlimited=True)
    before = rest.llm_engine.steps
    async with rest.client(key) as client:
        answer = await client.post("/v1/chat/completions", json=SLOW)
    assert answer.status_code == 504
    (event,) = await rest.settled("leaving-late", 1)
    assert (event.outcome, event.estimated) == ("failed", False)
    assert event.totals.output_tokens == rest.llm_engine.steps - before > 0


class Lost:
    """A call that never answers, of a service that can't be asked about it."""

    usage = None
    usage_by_model = ()

    def __aiter__(self) -> "Lost":
        return self

    async def __anext__(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        """Nothing is left to end."""

    def inquiry(self) -> Coroutine[object, object, None]:
        return self._refused()

    async def _refused(self) -> None:
        raise Unavailable("The service is away.")


async def test_where_the_service_cannot_be_asked_the_reservation_is_charged_as_estimated(rest):
    key = await rest.key("leaving-unasked", unlimited=True)
    principal = await rest.core.authenticator.authenticate(key, address="127.0.0.1")
    bound = Usage(model="fake-chat", input_tokens=5, output_tokens=40, estimated=True)
    job: Job[None] = Job(
        capability=Capability.CHAT,
        model="fake-chat",
        method=GENERATE_WHOLE,
        estimate=bound,
        call=lambda caller: Lost(),
    )
    running = asyncio.Event()

    async def work() -> None:
        async with Pipeline(rest.core.admission).run(principal, job, request_id="lost") as run:
            running.set()
            await anext(run)

    working = asyncio.create_task(work())
    await running.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    (event,) = await rest.settled("leaving-unasked", 1)
    assert (event.outcome, event.estimated) == ("cancelled", True)
    assert (event.totals.input_tokens, event.totals.output_tokens) == (5, 40)


async def test_each_of_several_replicas_is_found(llm_on: Callable, tmp_path, until):
    (tmp_path / "slow.yaml").write_text(SLOW_MODEL)
    catalogue = Catalogue.load(tmp_path / "slow.yaml")
    async with llm_on(catalogue) as (first, port), llm_on(catalogue) as (second, other):
        channel = open_channel(f"ipv4:127.0.0.1:{port},127.0.0.1:{other}")
        try:
            await _both_connected(channel, first, second)
            upstream = LlmUpstream(channel, Credentials(CREDENTIAL))
            begun = first.steps + second.steps
            calls = [upstream.generate_whole(_slowly(), _caller(at)) for at in range(CALLS)]
            waiting = [asyncio.ensure_future(anext(call)) for call in calls]
            await until(lambda: min(first.running, second.running) >= CALLS // 4)
            await until(lambda: first.steps > 10 and second.steps > 10)
            for call, wait in zip(calls, waiting, strict=True):
                call.cancel()
                wait.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await asyncio.gather(*(call.inquiry() for call in calls))
            made = first.steps + second.steps - begun
            unheard = UsageInquiry(channel, Credentials(CREDENTIAL)).consumed(_caller(CALLS))
            assert await unheard is None
        finally:
            await channel.close(None)
    assert sum(call.usage.output_tokens for call in calls) == made > 0


async def _both_connected(channel: grpc.aio.Channel, *engines) -> None:
    """Waits until calls reach both: a channel begins with the first that answers."""
    upstream = LlmUpstream(channel, Credentials(CREDENTIAL))
    known = [engine.steps for engine in engines]
    async with asyncio.timeout(20):
        while any(engine.steps == steps for engine, steps in zip(engines, known, strict=True)):
            await anext(upstream.generate_whole(_slowly(tokens=1), _caller(1000)))


def _slowly(*, tokens: int = 300) -> Generation:
    talk = Conversation(messages=[Message(role="user", content=("hello",))])
    return Generation(model="fake-slow", prompt=talk, sampling=Sampling(max_tokens=tokens))


def _caller(number: int) -> Caller:
    return Caller(
        tenant="acme",
        weight=1.0,
        reservation_id=f"reservation-{number}",
        request_id=f"request-{number}",
        deadline=asyncio.get_running_loop().time() + 60,
    )


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("chat/completions", {}, GENERATE_WHOLE),
        ("chat/completions", {"n": 3}, GENERATE_WHOLE),
        ("chat/completions", {"stream": True}, GENERATE),
        ("chat/completions", {"logprobs": True, "top_logprobs": 20}, GENERATE),
        (
            "chat/completions",
            {"logprobs": True, "top_logprobs": 20, "max_tokens": 64},
            GENERATE_WHOLE,
        ),
        ("completions", {"prompt": "one"}, GENERATE_WHOLE),
        ("completions", {"prompt": ["one", "two"]}, GENERATE),
        ("completions", {"prompt": "one", "echo": True}, GENERATE),
    ],
    ids=["chat", "n", "stream", "many-logprobs", "few-logprobs", "text", "prompts", "echo"],
)
async def test_an_answer_comes_as_one_message_where_that_is_sure_to_hold_it(
    rest, request, path, body, method
):
    tenant = f"whole-{request.node.callspec.id}"
    key = await rest.key(tenant, unlimited=True)
    asked = {"messages": SLOW["messages"]} if path.startswith("chat") else {}
    async with rest.client(key) as client:
        answer = await client.post(f"/v1/{path}", json={"model": "fake-chat", **asked, **body})
    assert answer.status_code == httpx.codes.OK, answer.text
    (event,) = await rest.settled(tenant, 1)
    assert event.method == method
    assert event.outcome == "completed"
