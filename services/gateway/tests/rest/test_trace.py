"""A caller's trace goes on through the services, and only a well-formed one."""

import pytest

from atrium_common.interceptors.tracing import outgoing_metadata

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EMBED = "/v1/embeddings", {"model": "fake-embedding", "input": "hi"}
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions", {"model": "fake-chat", "messages": MESSAGES, "max_tokens": 2}
STREAM = CHAT[0], CHAT[1] | {"stream": True}


@pytest.fixture
def seen(rest, monkeypatch):
    """What the text service's engine would tell of the trace, call by call."""
    traces = []
    for name in ("embed", "generate"):
        work = getattr(rest.llm_engine, name)

        def noting(job, work=work):
            traces.append(dict(outgoing_metadata()))
            return work(job)

        monkeypatch.setattr(rest.llm_engine, name, noting)
    return traces


async def send(rest, request, headers):
    async with rest.client(await rest.key("trace")) as client:
        reply = await client.post(request[0], json=request[1], headers=headers)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("request_", [EMBED, CHAT, STREAM])
async def test_the_callers_trace_reaches_the_engine(rest, seen, request_):
    await send(rest, request_, {"traceparent": PARENT})
    await send(rest, request_, {"traceparent": PARENT, "tracestate": "a=1,b=2"})
    await send(rest, request_, {})
    assert seen == [
        {"traceparent": PARENT},
        {"traceparent": PARENT, "tracestate": "a=1,b=2"},
        {},
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "zz"},
        {"traceparent": PARENT + "-more"},
        {"traceparent": PARENT.replace("0af", "0AF").encode() + b"\xff"},
        {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
        {"tracestate": "a=1"},
        [("traceparent", PARENT), ("traceparent", PARENT)],
    ],
)
async def test_a_broken_trace_is_no_trace_and_no_error(rest, seen, headers):
    await send(rest, EMBED, headers)
    assert seen == [{}]
