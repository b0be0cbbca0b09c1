"""The promises that every text engine keeps; each engine's test module subclasses these.

A subclass in `test_<engine>_contract.py` sets the class attributes, and its module
provides the fixture ``engine`` (loaded; at module level, so that it may be
session-scoped). A promise that an engine does not make is switched off by its flag, and
then the engine must refuse the option by name. Whatever a model says is free: these
tests check properties, never texts.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

import jsonschema
import pytest

from atrium_common.domain import ModelState, Usage
from atrium_common.errors import InvalidArgument, NotFound
from atrium_llm.domain import (
    ChatInput,
    ChatMessage,
    ChoiceDelta,
    EmbeddingJob,
    FinishReason,
    GenerationEvent,
    GenerationJob,
    ImagePart,
    JsonObject,
    JsonSchema,
    PromptInput,
    Role,
    Sampling,
    TextInput,
    TextPart,
    TokenLogprob,
)
from atrium_llm.engines.base import TextGenerationEngine

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "warm": {"type": "boolean"},
        "level": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "warm", "level"],
    "additionalProperties": False,
}


def chat(*texts: str) -> ChatInput:
    """Makes a conversation of user messages."""
    return ChatInput(
        messages=[ChatMessage(role=Role.USER, content=[TextPart(text)]) for text in texts]
    )


def stream(
    engine: TextGenerationEngine, job: GenerationJob
) -> aclosing[AsyncGenerator[GenerationEvent, None]]:
    """Opens a generation that is closed at the end of the ``async with``."""
    return aclosing(cast(AsyncGenerator[GenerationEvent, None], engine.generate(job)))


@dataclass
class Answer:
    """A drained generation: what each choice came to, and all usages in order."""

    texts: dict[int, str] = field(default_factory=dict)
    finish: dict[int, FinishReason] = field(default_factory=dict)
    stops: dict[int, str | None] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    deltas: list[ChoiceDelta] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.texts.get(0, "")

    @property
    def usage(self) -> Usage:
        """The last usage: what is charged."""
        return self.usages[-1]

    def add(self, event: GenerationEvent) -> None:
        """Takes in one event and checks that no choice goes on after its end."""
        self.usages.append(event.usage)
        for delta in event.deltas:
            assert delta.index not in self.finish, "a delta after the finish reason"
            self.deltas.append(delta)
            self.texts[delta.index] = self.texts.get(delta.index, "") + delta.text
            self.logprobs.setdefault(delta.index, []).extend(delta.logprobs)
            if delta.finish_reason is not None:
                self.finish[delta.index] = delta.finish_reason
                self.stops[delta.index] = delta.stop


async def drain(engine: TextGenerationEngine, job: GenerationJob) -> Answer:
    """Runs a generation to its end."""
    answer = Answer()
    async with stream(engine, job) as events:
        async for event in events:
            answer.add(event)
    return answer


def assert_cumulative(usages: Sequence[Usage]) -> None:
    """Checks that no count ever falls."""
    for before, after in itertools.pairwise(usages):
        assert after.input_tokens >= before.input_tokens
        assert after.output_tokens >= before.output_tokens
        assert after.inference_time >= before.inference_time


class TextEngineContract:
    """Subclass it as ``class TestX(TextEngineContract)`` beside a fixture ``engine``."""

    model: str = ""
    prompt: PromptInput = chat("Tell me a story about the sea.")
    """Something that the model answers with at least 16 tokens, free or greedy."""
    stop_prompt: PromptInput | None = None
    """Where the answer must be stable for the stop test; default `prompt`, greedy."""
    embedding_model: str | None = None
    honours_seed = True
    honours_n = True
    honours_logprobs = True
    honours_json = True
    honours_stop = True
    sees_images = False
    counts_tokens = True
    first_event_is_empty = True
    step_seconds = 5.0
    """Bound on the time until a closed stream is gone: one step of the engine."""

    def running(self, engine: TextGenerationEngine) -> int | None:
        """Slots in use, where the engine can tell; override it."""
        del engine
        return None

    def job(self, **changes: object) -> GenerationJob:
        """Makes a greedy job of 8 tokens; keywords are those of `Sampling`."""
        sampling = {"max_tokens": 8, "temperature": 0.0, **changes}
        return GenerationJob(
            model=self.model,
            input=self.prompt,
            sampling=Sampling(**sampling),  # type: ignore[arg-type]
        )

    async def refused(self, engine: TextGenerationEngine, job: GenerationJob, field: str) -> None:
        """Checks that `job` is refused, naming `field`, before any event."""
        with pytest.raises(InvalidArgument) as caught:
            await drain(engine, job)
        assert caught.value.field is not None
        assert field in caught.value.field

    def test_models_says_ready(self, engine: TextGenerationEngine) -> None:
        info = {model.id: model for model in engine.models()}[self.model]
        assert info.state is ModelState.READY
        assert info.engine == engine.name

    async def test_verify_answers(self, engine: TextGenerationEngine) -> None:
        await engine.verify(self.model)

    async def test_streams_text_and_ends_once(self, engine: TextGenerationEngine) -> None:
        answer = await drain(engine, self.job())
        assert answer.text
        assert answer.finish == {0: FinishReason.LENGTH} or answer.finish == {0: FinishReason.STOP}
        assert sum(delta.finish_reason is not None for delta in answer.deltas) == 1
        assert len(answer.deltas) > 1

    async def test_usage_is_cumulative_and_exact(self, engine: TextGenerationEngine) -> None:
        answer = await drain(engine, self.job())
        assert_cumulative(answer.usages)
        assert answer.usages[0].input_tokens == answer.usage.input_tokens > 0
        assert answer.usage.engine == engine.name
        assert answer.usage.model == self.model
        assert 1 <= answer.usage.output_tokens <= 8
        if answer.finish[0] is FinishReason.LENGTH:
            assert answer.usage.output_tokens == 8

    async def test_first_event_follows_prefill(self, engine: TextGenerationEngine) -> None:
        if not self.first_event_is_empty:
            return
        async with stream(engine, self.job()) as events:
            first = await anext(aiter(events))
        assert not first.deltas
        assert first.usage.input_tokens > 0
        assert first.usage.output_tokens == 0

    async def test_max_tokens_is_exact(self, engine: TextGenerationEngine) -> None:
        for limit in (1, 5):
            answer = await drain(engine, self.job(max_tokens=limit))
            assert answer.usage.output_tokens <= limit
            assert answer.finish[0] in (FinishReason.LENGTH, FinishReason.STOP)

    async def test_stop_string_is_not_part_of_the_text(self, engine: TextGenerationEngine) -> None:
        job = self.job(max_tokens=16)
        if self.stop_prompt is not None:
            job = GenerationJob(model=self.model, input=self.stop_prompt, sampling=job.sampling)
        whole = (await drain(engine, job)).text
        middle = len(whole) // 2
        stop = whole[middle : middle + 4]
        sampling = Sampling(max_tokens=16, temperature=0.0, stop=("\x00never", stop))
        stopped = GenerationJob(model=self.model, input=job.input, sampling=sampling)
        if not self.honours_stop:
            await self.refused(engine, stopped, "stop")
            return
        answer = await drain(engine, stopped)
        assert answer.text == whole[: whole.index(stop)]
        assert answer.finish[0] is FinishReason.STOP
        assert answer.stops[0] == stop

    async def test_seed_repeats_beside_others(self, engine: TextGenerationEngine) -> None:
        job = self.job(temperature=1.0, seed=7, max_tokens=10)
        if not self.honours_seed:
            await self.refused(engine, job, "seed")
            return
        alone = await drain(engine, job)
        others = [self.job(temperature=1.3, seed=n, max_tokens=12) for n in range(3)]
        together = await asyncio.gather(*(drain(engine, one) for one in [*others, job]))
        assert together[-1].texts == alone.texts

    async def test_choices_are_separate(self, engine: TextGenerationEngine) -> None:
        one = await drain(engine, self.job(max_tokens=6))
        job = self.job(n=3, max_tokens=6, temperature=1.0, seed=1)
        if not self.honours_n:
            await self.refused(engine, job, "n")
            return
        answer = await drain(engine, job)
        assert set(answer.finish) == {0, 1, 2}
        assert answer.usage.input_tokens == one.usage.input_tokens, "the prompt counts once"
        assert 3 <= answer.usage.output_tokens <= 18

    async def test_logprobs_stand_beside_each_token(self, engine: TextGenerationEngine) -> None:
        job = self.job(top_logprobs=3, max_tokens=5)
        if not self.honours_logprobs:
            await self.refused(engine, job, "top_logprobs")
            return
        answer = await drain(engine, job)
        tokens = answer.logprobs[0]
        assert 0 < len(tokens) <= answer.usage.output_tokens
        for token in tokens:
            assert token.logprob <= 0
            assert len(token.top) == 3
            assert [t.logprob for t in token.top] == sorted(
                (t.logprob for t in token.top), reverse=True
            )

    async def test_json_object(self, engine: TextGenerationEngine) -> None:
        job = GenerationJob(
            model=self.model,
            input=self.prompt,
            sampling=Sampling(max_tokens=32, temperature=0.0),
            response_format=JsonObject(),
        )
        if not self.honours_json:
            await self.refused(engine, job, "response_format")
            return
        answer = await drain(engine, job)
        assert answer.text.lstrip().startswith("{")
        if answer.finish[0] is FinishReason.STOP:
            assert isinstance(json.loads(answer.text), dict)

    async def test_json_schema(self, engine: TextGenerationEngine) -> None:
        job = GenerationJob(
            model=self.model,
            input=self.prompt,
            sampling=Sampling(max_tokens=80, temperature=0.8, seed=3),
            response_format=JsonSchema(SCHEMA),
        )
        if not self.honours_json:
            await self.refused(engine, job, "response_format")
            return
        answer = await drain(engine, job)
        assert answer.finish[0] is FinishReason.STOP
        jsonschema.validate(json.loads(answer.text), SCHEMA)

    async def test_closing_stops_within_a_step(self, engine: TextGenerationEngine) -> None:
        seen = 0
        async with asyncio.timeout(self.step_seconds):
            async with stream(engine, self.job(max_tokens=2000)) as events:
                async for event in events:
                    seen += bool(event.deltas)
                    if seen == 2:
                        break
        running = self.running(engine)
        assert running is None or running == 0
        assert (await drain(engine, self.job())).text

    async def test_a_cancelled_reader_frees_its_slot(self, engine: TextGenerationEngine) -> None:
        task = asyncio.create_task(drain(engine, self.job(max_tokens=2000)))
        await asyncio.sleep(0.05)
        task.cancel()
        async with asyncio.timeout(self.step_seconds):
            with pytest.raises(asyncio.CancelledError):
                await task
        running = self.running(engine)
        assert running is None or running == 0

    async def test_callers_do_not_see_each_other(self, engine: TextGenerationEngine) -> None:
        jobs = [self.job(max_tokens=2 + n) for n in range(6)]
        alone = [await drain(engine, job) for job in jobs]
        together = await asyncio.gather(*(drain(engine, job) for job in jobs))
        for one, other in zip(alone, together, strict=True):
            assert one.text == other.text
            assert one.usage.output_tokens == other.usage.output_tokens

    async def test_one_bad_request_hurts_no_other(self, engine: TextGenerationEngine) -> None:
        bad = GenerationJob(model="no-such-model", input=self.prompt)
        results = await asyncio.gather(
            drain(engine, self.job()),
            drain(engine, bad),
            drain(engine, self.job()),
            return_exceptions=True,
        )
        assert isinstance(results[1], NotFound)
        assert isinstance(results[0], Answer)
        assert isinstance(results[2], Answer)
        assert results[0].text == results[2].text

    async def test_unknown_model_is_not_found(self, engine: TextGenerationEngine) -> None:
        with pytest.raises(NotFound) as caught:
            await drain(engine, GenerationJob(model="no-such-model", input=self.prompt))
        assert caught.value.field == "model"
        with pytest.raises(NotFound):
            await engine.embed(EmbeddingJob(model="no-such-model", inputs=[TextInput("x")]))
        with pytest.raises(NotFound):
            await engine.count_tokens("no-such-model", TextInput("x"))

    async def test_context_overflow_is_refused_by_name(self, engine: TextGenerationEngine) -> None:
        info = {model.id: model for model in engine.models()}[self.model]
        if not info.context_length:
            return
        job = GenerationJob(model=self.model, input=chat("word " * (info.context_length + 10)))
        with pytest.raises(InvalidArgument) as caught:
            await drain(engine, job)
        assert caught.value.field
        assert str(info.context_length) in caught.value.message

    async def test_images_are_refused_by_a_blind_model(self, engine: TextGenerationEngine) -> None:
        if self.sees_images:
            return
        message = ChatMessage(role=Role.USER, content=[TextPart("What?"), ImagePart(b"\x89PNG")])
        job = GenerationJob(model=self.model, input=ChatInput(messages=[message]))
        await self.refused(engine, job, "image")

    async def test_count_tokens_is_what_is_charged(self, engine: TextGenerationEngine) -> None:
        if not self.counts_tokens:
            return
        inputs: list[PromptInput] = [self.prompt, chat("é世界🌊 and more"), TextInput("Once upon")]
        for prompt in inputs:
            count = await engine.count_tokens(self.model, prompt)
            job = GenerationJob(model=self.model, input=prompt, sampling=Sampling(max_tokens=1))
            assert (await drain(engine, job)).usage.input_tokens == count

    async def test_embeddings_are_unit_vectors(self, engine: TextGenerationEngine) -> None:
        if self.embedding_model is None:
            return
        job = EmbeddingJob(
            model=self.embedding_model, inputs=[TextInput("a"), TextInput("b b"), TextInput("a")]
        )
        result = await engine.embed(job)
        assert len(result.vectors) == 3
        assert result.usage.input_tokens > 0
        for vector in result.vectors:
            assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-3)
        assert list(result.vectors[0]) == pytest.approx(list(result.vectors[2]), abs=1e-5)
