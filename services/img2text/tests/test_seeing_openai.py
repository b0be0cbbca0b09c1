"""The OpenAI-compatible engine against a real HTTP server that behaves, or does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import pytest_asyncio
from vision_contract import VisionContract, answered, answering, described, picture
from vision_provider import (
    REPLY,
    SECRET,
    Handler,
    VisionProvider,
    chunk,
    refuses,
    says,
    text,
    usage,
    vision_provider,
)

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, ModelState
from atrium_common.errors import AtriumError, InvalidArgument, Overloaded, Unavailable
from atrium_img2text.domain import (
    DescriptionJob,
    DescriptionOrder,
    FinishReason,
    QuestionJob,
    QuestionOrder,
    TextSampling,
    Turn,
)
from atrium_img2text.engines.openai import OpenAIEngine

END = chunk(finish_reason="stop")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running() -> AsyncIterator[VisionProvider]:
    async with vision_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: VisionProvider, monkeypatch: pytest.MonkeyPatch) -> VisionProvider:
    """A provider that answers and has heard nothing yet."""
    monkeypatch.setenv("FAR_KEY", SECRET)
    running.reset()
    return running


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[OpenAIEngine]:
    entry = ModelEntry(
        id="far",
        service="img2text",
        capabilities=(Capability.IMAGE_TO_TEXT,),
        engine="openai",
        options={"base_url": url, "model": "gpt-x", "api_key_env": "FAR_KEY", **options},  # type: ignore[dict-item]
    )
    engine = OpenAIEngine([entry])
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(provider: VisionProvider) -> AsyncIterator[OpenAIEngine]:
    """The engine, with the provider as its upstream."""
    async with opened(provider.url) as engine:
        yield engine


class TestContract(VisionContract):
    model = "far"
    honours_beams = False
    honours_repetition_penalty = False


def asking(question: str = "What?", **changes: object) -> QuestionJob:
    order = QuestionOrder(model="far", question=question)
    return QuestionJob(order=replace(order, **changes), pixels=picture())  # type: ignore[arg-type]


def describing(**changes: object) -> DescriptionJob:
    order = replace(DescriptionOrder(model="far"), **changes)  # type: ignore[arg-type]
    return DescriptionJob(order=order, pixels=picture())


async def test_a_conversation_is_sent_as_it_went(
    engine: OpenAIEngine, provider: VisionProvider
) -> None:
    history = [Turn("How many?", "Two."), Turn("Of what?", "Stars.")]
    sampling = TextSampling(max_tokens=5, temperature=0.5, top_p=0.9, seed=3)
    job = asking("Which colour?", history=history, instructions="Be brief.", sampling=sampling)
    whole = await answered(engine, job)
    (sent,) = provider.asked
    assert sent.key == f"Bearer {SECRET}"
    wanted = {"model": "gpt-x", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3,
              "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    assert {name: value for name, value in sent.body.items() if name != "messages"} == wanted
    system, first, *rest = sent.messages
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert (first["role"], first["content"][1]["text"]) == ("user", "How many?")
    assert rest == [
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Of what?"},
        {"role": "assistant", "content": "Stars."},
        {"role": "user", "content": "Which colour?"},
    ]
    np.testing.assert_array_equal(sent.pixels, job.pixels)
    assert whole.text == "".join(REPLY[:5])
    assert whole.finish_reason is FinishReason.LENGTH


async def test_a_description_is_an_answer_to_the_prompt(provider: VisionProvider) -> None:
    async with opened(provider.url, caption_prompt="Say it in German.", detail="low") as engine:
        whole = await described(engine, describing(prefix="ein Foto von", n=2))
    (sent,) = provider.asked
    (message,) = sent.messages
    image, prompt = message["content"]
    assert image["image_url"]["detail"] == "low"
    assert prompt["text"].startswith("Say it in German.")
    assert prompt["text"].endswith("ein Foto von")
    assert (sent.body["n"], sent.body["max_tokens"]) == (2, 64)
    assert whole.texts == ["".join(REPLY)] * 2
    assert [caption.average_logprob for caption in whole.captions] == [0, 0]


async def test_a_prefix_that_is_repeated_is_cut(
    engine: OpenAIEngine, provider: VisionProvider
) -> None:
    provider.handle = says(text("A photo of"), text(" two stars. "), END)
    assert (await described(engine, describing(prefix="A photo of "))).texts == ["two stars."]


async def test_captions_are_ranked_where_the_provider_tells(provider: VisionProvider) -> None:
    def sure(index: int, word: str, *logprobs: float) -> dict[str, object]:
        told = [{"token": "x", "logprob": logprob, "top_logprobs": []} for logprob in logprobs]
        return chunk(index=index, delta={"content": word}, logprobs={"content": told})

    ends = [chunk(index=index, finish_reason="stop") for index in (0, 1)]
    provider.handle = says(sure(0, "unsure", -3, -1), sure(1, "sure", -0.5), *ends)
    async with opened(provider.url, logprobs=True) as engine:
        whole = await described(engine, describing(n=2))
    told = [(one.index, one.text, one.average_logprob) for one in whole.captions]
    assert told == [(0, "sure", -0.5), (1, "unsure", -2)]
    assert provider.asked[0].body["logprobs"] is True


@pytest.mark.parametrize(("max_bytes", "kind"), [(4 << 20, "png"), (30_000, "jpeg")])
async def test_a_picture_is_made_to_fit(
    provider: VisionProvider, max_bytes: int, kind: str
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 200, 3), np.uint8)
    async with opened(provider.url, max_side=150, max_image_bytes=max_bytes) as engine:
        await answered(engine, replace(asking(), pixels=noise))
    assert provider.asked[0].image_url.startswith(f"data:image/{kind};base64,")
    assert provider.asked[0].pixels.shape == (150, 100, 3)


async def test_tokens_are_a_guess_until_the_provider_tells(
    engine: OpenAIEngine, provider: VisionProvider
) -> None:
    provider.handle = says(text("nine char"), END, usage(11, 7))
    whole = await answered(engine, asking())
    assert [event.counts.estimated for event in whole.events] == [True, True, False]
    assert (whole.counts.input_tokens, whole.counts.output_tokens) == (11, 7)
    provider.handle = says(text("nine char"), END)
    guessed = (await answered(engine, asking())).counts
    assert (guessed.estimated, guessed.output_tokens) == (True, 3)
    assert guessed.input_tokens > 1000


async def test_a_refusal_is_an_answer_and_a_filter_is_named(
    engine: OpenAIEngine, provider: VisionProvider
) -> None:
    provider.handle = says(chunk(delta={"refusal": "I can't."}), END)
    assert (await answered(engine, asking())).text == "I can't."
    provider.handle = says(text("It"), chunk(finish_reason="content_filter"))
    with pytest.raises(InvalidArgument) as caught:
        await answered(engine, asking())
    assert caught.value.reason == "CONTENT_FILTERED"


@pytest.mark.parametrize(
    ("handle", "kind", "retry"),
    [
        (refuses(400, param="temperature"), InvalidArgument, None),
        (refuses(401), Unavailable, None),
        (refuses(404), Unavailable, None),
        (refuses(429, headers={"retry-after": "7"}), Overloaded, timedelta(seconds=7)),
        (refuses(429, code="insufficient_quota"), Unavailable, None),
        (refuses(500), Unavailable, None),
        (refuses(503, headers={"retry-after": "2"}), Unavailable, timedelta(seconds=2)),
    ],
)
async def test_errors_become_ours_without_secrets(
    engine: OpenAIEngine,
    provider: VisionProvider,
    handle: Handler,
    kind: type[AtriumError],
    retry: timedelta | None,
) -> None:
    provider.handle = handle
    with pytest.raises(kind) as caught:
        await answered(engine, asking())
    assert type(caught.value) is kind
    assert caught.value.retry_after == retry
    assert SECRET not in caught.value.message
    assert len(provider.asked) == 1, "the engine does not try again by itself"


async def test_a_refused_field_is_named(engine: OpenAIEngine, provider: VisionProvider) -> None:
    provider.handle = refuses(400, param="temperature", code="out_of_range")
    with pytest.raises(InvalidArgument) as caught:
        await described(engine, describing())
    assert (caught.value.field, caught.value.reason) == ("sampling.temperature", "OUT_OF_RANGE")


@pytest.mark.parametrize(
    "handle",
    [
        says(text("hi"), done=False),
        says(text("hi")),
        says(),
        says(text("hi"), "{no json"),
        says(text("hi"), {"choices": 7}),
        says(text("hi"), {"error": {"message": f"boom {SECRET}"}}),
        says(text("hi"), drop=True),
    ],
    ids=["cut", "no-end", "empty", "no-json", "odd", "error-event", "lost"],
)
async def test_a_broken_stream_is_no_success(
    engine: OpenAIEngine, provider: VisionProvider, handle: Handler
) -> None:
    provider.handle = handle
    for whole in (answered(engine, asking()), described(engine, describing())):
        with pytest.raises(Unavailable) as caught:
            await whole
        assert SECRET not in caught.value.message


async def test_more_or_fewer_texts_than_asked_for_are_no_success(
    engine: OpenAIEngine, provider: VisionProvider
) -> None:
    provider.handle = says(text("one"), END)
    with pytest.raises(Unavailable):
        await described(engine, describing(n=2))
    provider.handle = says(text("one"), chunk(index=1, delta={"content": "two"}), END, END)
    with pytest.raises(Unavailable):
        await answered(engine, asking())


async def test_silence_is_cut_short(provider: VisionProvider) -> None:
    provider.handle = says(text("hi"), END, pause=1.0)
    async with opened(provider.url, timeout_seconds=0.2) as engine:
        with pytest.raises(Unavailable):
            await answered(engine, asking())


async def test_nobody_there_and_no_key(
    provider: VisionProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened("http://127.0.0.1:1/v1") as engine:
        with pytest.raises(Unavailable):
            await answered(engine, asking())
    monkeypatch.delenv("FAR_KEY")
    async with opened(provider.url) as engine:
        assert engine.models()[0].state is ModelState.FAILED
        with pytest.raises(Unavailable) as caught:
            engine.check_question(asking().order)
    assert caught.value.reason == "MODEL_NOT_READY"


async def test_leaving_closes_the_connection(
    engine: OpenAIEngine, provider: VisionProvider
) -> None:
    provider.handle = provider.endless
    async with answering(engine, asking()) as events:
        async for event in events:
            if event.text:
                break
    async with asyncio.timeout(5):
        await provider.left.wait()
