"""The engine's loop: batching changes no answer, nothing starves, nothing leaks."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from engine_contract import Answer, assert_cumulative, chat, drain, stream
from tiny_models import HERMES, TINY, make_tiny, tiny_entry
from torch import Tensor
from transformers import AutoModelForCausalLM

from atrium_common.domain import ModelState
from atrium_common.errors import InternalError, InvalidArgument, Unavailable
from atrium_common.weights import WeightStore
from atrium_llm.domain import (
    ChatInput,
    FinishReason,
    GenerationJob,
    JsonObject,
    PromptInput,
    Sampling,
    TextInput,
    TokenInput,
    Tool,
    ToolMode,
)
from atrium_llm.engines.hf.batch import PackedBatch
from atrium_llm.engines.hf.generator import Generator
from atrium_llm.engines.transformers import TransformersEngine

Made = Callable[..., "asyncio.Future[TransformersEngine]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without tools."""
    path = tmp_path_factory.mktemp("tiny")
    make_tiny(path)
    return path


@pytest_asyncio.fixture
async def make(folder: Path, tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Makes loaded engines with the options given, and closes them."""
    made: list[TransformersEngine] = []

    async def make_one(where: Path = folder, **options: int) -> TransformersEngine:
        entry = tiny_entry(where, options)
        engine = TransformersEngine([entry], store=WeightStore(tmp_path), device="cpu")
        await engine.load()
        made.append(engine)
        assert engine.models()[0].state is ModelState.READY, engine.models()[0].detail
        return engine

    yield make_one
    for engine in made:
        await engine.close()


def generator(engine: TransformersEngine) -> Generator:
    """The loaded model behind an engine."""
    model = engine._host.peek(TINY)
    assert isinstance(model, Generator)
    return model


def job(source: PromptInput | str = "Hello", **sampling: object) -> GenerationJob:
    """Makes a greedy job that runs to its limit of 12 tokens."""
    source = TextInput(source) if isinstance(source, str) else source
    settings = {"max_tokens": 12, "min_tokens": 12, "temperature": 0.0, **sampling}
    return GenerationJob(model=TINY, input=source, sampling=Sampling(**settings))  # type: ignore[arg-type]


def assert_idle(engine: TransformersEngine) -> None:
    """Checks that no slot and no cache is held."""
    assert engine.running(TINY) == 0
    assert generator(engine).cache_tokens == 0


async def test_greedy_is_what_the_library_generates(make: Made, folder: Path) -> None:
    engine = await make(prompt_chunk=3, prompt_chunk_alone=5)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [list(range(5 + n, 18 + 3 * n)) for n in range(5)]
    answers = await asyncio.gather(
        *(drain(engine, job(TokenInput(p), top_logprobs=0)) for p in prompts)
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, do_sample=False, max_new_tokens=12, min_new_tokens=12, pad_token_id=0
        )
        assert [t.token_id for t in answer.logprobs[0]] == whole[0, len(prompt) :].tolist()


async def test_a_small_cache_makes_choices_wait_and_changes_nothing(make: Made) -> None:
    roomy, tight = await make(), await make(kv_cache_mib=1)
    scheduler = generator(tight)._loop._scheduler
    scheduler._limits = type(scheduler._limits)(
        slots=16, cache_tokens=256, prompt_chunk=8, prompt_chunk_alone=8
    )
    jobs = [job("x" * (40 + n), max_tokens=60, min_tokens=60) for n in range(8)]
    expected = await asyncio.gather(*(drain(roomy, one) for one in jobs))
    given = await asyncio.gather(*(drain(tight, one) for one in jobs))
    assert [a.texts for a in given] == [a.texts for a in expected]
    assert [a.usage.output_tokens for a in given] == [60] * 8
    assert_idle(tight)


async def test_choices_of_one_prompt_are_the_same_as_alone(make: Made) -> None:
    engine = await make(slots=2)
    answer = await drain(engine, job(n=5, temperature=1.0, seed=9))
    again = await drain(engine, job(n=5, temperature=1.0, seed=9))
    assert answer.texts == again.texts
    assert len(set(answer.texts.values())) == 5
    assert answer.usage.output_tokens == 60
    assert answer.usage.input_tokens == 5
    assert_idle(engine)


async def test_running_streams_go_on_while_a_long_prompt_is_read(make: Made) -> None:
    engine = await make(prompt_chunk=4)
    events: list[str] = []

    async def note(name: str, one: GenerationJob) -> None:
        async with stream(engine, one) as made:
            async for event in made:
                events.append(name if event.deltas else f"{name} read")

    writer = asyncio.create_task(note("a", job(max_tokens=200, min_tokens=200)))
    while "a" not in events:  # noqa: ASYNC110 - the stream itself is the event
        await asyncio.sleep(0.001)
    before = events.count("a")
    await note("b", job("y" * 200, max_tokens=1, min_tokens=1))
    assert events[: events.index("b")].count("a") - before > 20
    await writer


async def test_cancels_at_random_moments_leak_nothing(make: Made) -> None:
    engine = await make(slots=8, prompt_chunk=8)
    source = random.Random(4)  # noqa: S311 - no secret

    async def one(number: int) -> None:
        limit = source.randint(1, 40)
        generated = job(
            "z" * source.randint(1, 60),
            max_tokens=limit,
            min_tokens=limit,
            n=source.choice([1, 1, 3]),
            temperature=1.0,
            seed=number,
            top_logprobs=0,
        )
        answer = Answer()

        async def read() -> None:
            async with stream(engine, generated) as events:
                async for event in events:
                    answer.add(event)

        task = asyncio.create_task(read())
        await asyncio.sleep(source.random() * 0.15)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if answer.usages:  # what was handed over is what is charged, to the token
            assert_cumulative(answer.usages)
            handed_over = sum(len(tokens) for tokens in answer.logprobs.values())
            assert answer.usage.output_tokens == handed_over

    for _ in range(12):
        await asyncio.gather(*(one(number) for number in range(25)))
        assert_idle(engine)
    assert (await drain(engine, job())).text


async def test_a_cancel_takes_effect_within_a_step(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make()
    forward = generator(engine)._forward
    steps = 0

    def counted(batch: PackedBatch) -> Tensor:
        nonlocal steps
        steps += 1
        return forward(batch)

    monkeypatch.setattr(generator(engine)._loop, "_forward", counted)
    async with stream(engine, job(max_tokens=900, min_tokens=900)) as events:
        async for event in events:
            if event.usage.output_tokens >= 3:
                break
        seen = steps
    assert steps - seen <= 2  # the one under way, and one that began before the cancel came
    assert_idle(engine)


async def test_a_bad_step_fails_its_request_only(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make()
    expected = (await drain(engine, job())).text
    forward = generator(engine)._forward

    def refuse_sevens(batch: PackedBatch) -> Tensor:
        if 7 in batch.ids:
            raise RuntimeError("no sevens")
        return forward(batch)

    monkeypatch.setattr(generator(engine)._loop, "_forward", refuse_sevens)
    good, bad, other = await asyncio.gather(
        drain(engine, job()),
        drain(engine, job(TokenInput([7] * 5))),
        drain(engine, job()),
        return_exceptions=True,
    )
    assert isinstance(bad, InternalError)
    assert "sevens" not in bad.message
    assert isinstance(good, Answer)
    assert isinstance(other, Answer)
    assert (good.text, other.text) == (expected, expected)
    assert_idle(engine)


async def test_a_dead_engine_tells_everyone(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await make()

    def gone(batch: PackedBatch) -> Tensor:
        raise RuntimeError("device lost")

    monkeypatch.setattr(generator(engine)._loop, "_forward", gone)
    results = await asyncio.gather(
        *(drain(engine, job()) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, Unavailable | InternalError) for result in results)
    info = engine.models()[0]
    assert info.state is ModelState.FAILED
    assert info.detail
    with pytest.raises(Unavailable):
        await drain(engine, job())


async def test_closing_fails_what_still_runs(make: Made) -> None:
    engine = await make()
    task = asyncio.create_task(drain(engine, job(max_tokens=900, min_tokens=900)))
    await asyncio.sleep(0.05)
    await engine.close()
    with pytest.raises(Unavailable):
        await task
    assert engine.models()[0].state is ModelState.UNLOADED


async def test_prompt_and_answer_share_the_window(make: Made) -> None:
    engine = await make()
    answer = await drain(engine, job("w" * 1012, max_tokens=100, min_tokens=100))
    assert answer.finish == {0: FinishReason.LENGTH}
    assert answer.usage.output_tokens == 12
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, job("w" * 1024))
    assert caught.value.field == "job.prompt"
    assert "1024" in caught.value.message


async def test_echo_stands_before_every_choice(make: Made) -> None:
    engine = await make()
    one = GenerationJob(
        model=TINY, input=TextInput("Say: "), sampling=Sampling(max_tokens=3, n=2), echo=True
    )
    answer = await drain(engine, one)
    assert all(text.startswith("Say: ") for text in answer.texts.values())


async def test_tools_are_refused_where_the_template_has_none(make: Made) -> None:
    engine = await make()
    source = ChatInput(messages=chat("Hi").messages, tools=[Tool(name="weather")])
    with pytest.raises(InvalidArgument) as caught:
        await drain(engine, job(source))
    assert caught.value.field == "job.chat.tools"


@pytest.mark.parametrize("mode", [ToolMode.REQUIRED, ToolMode.NAMED])
async def test_a_required_tool_is_called(
    make: Made, tmp_path_factory: pytest.TempPathFactory, mode: ToolMode
) -> None:
    where = tmp_path_factory.mktemp("hermes")
    make_tiny(where, template=HERMES)
    engine = await make(where)
    schema = {
        "type": "object",
        "properties": {"warm": {"type": "boolean"}},
        "required": ["warm"],
        "additionalProperties": False,
    }
    tools = [Tool(name="other", parameters=schema), Tool(name="weather", parameters=schema)]
    source = ChatInput(
        messages=chat("Hi").messages,
        tools=tools,
        tool_mode=mode,
        tool_name="weather" if mode is ToolMode.NAMED else None,
        parallel_tool_calls=False,
    )
    answer = await drain(engine, job(source, max_tokens=150, min_tokens=0))
    calls = [call for delta in answer.deltas for call in delta.tool_calls]
    assert len(calls) == 1
    assert calls[0].name in (("weather",) if mode is ToolMode.NAMED else ("weather", "other"))
    assert calls[0].arguments in ('{"warm": true}', '{"warm": false}')
    assert answer.finish == {0: FinishReason.TOOL_CALLS}
    assert answer.text == ""


async def test_a_schema_that_cannot_be_enforced_is_refused(make: Made) -> None:
    engine = await make()
    ok = GenerationJob(
        model=TINY,
        input=TextInput("x"),
        sampling=Sampling(max_tokens=5),
        response_format=JsonObject(),
    )
    assert (await drain(engine, ok)).text.startswith("{")
