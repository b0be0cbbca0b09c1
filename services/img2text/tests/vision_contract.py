"""The promises that every engine that sees keeps; each engine's tests subclass these.

A subclass sets the class attributes, and its module provides the fixture ``engine``
(loaded; at module level, so that it may be session-scoped). A promise that an engine does
not make is switched off by its flag, and then the engine must refuse the option by name.
Whatever a model says is free: these tests check properties, never texts.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pytest

from atrium_common.domain import ModelState
from atrium_common.errors import InvalidArgument, NotFound
from atrium_common.images import Pixels
from atrium_img2text.domain import (
    AnswerEvent,
    Caption,
    Counts,
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    FinishReason,
    QuestionJob,
    QuestionOrder,
    TextSampling,
    Turn,
)
from atrium_img2text.engines.base import VisionEngine


def picture(height: int = 48, width: int = 64, seed: int = 1) -> Pixels:
    """Makes a picture of two colours; `seed` chooses them."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 3), np.uint8)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = colours
    return pixels


def describing(
    engine: VisionEngine, job: DescriptionJob
) -> aclosing[AsyncGenerator[DescriptionEvent, None]]:
    """Opens a description that is closed at the end of the ``async with``."""
    return aclosing(cast(AsyncGenerator[DescriptionEvent, None], engine.describe(job)))


def answering(
    engine: VisionEngine, job: QuestionJob
) -> aclosing[AsyncGenerator[AnswerEvent, None]]:
    """Opens an answer that is closed at the end of the ``async with``."""
    return aclosing(cast(AsyncGenerator[AnswerEvent, None], engine.answer(job)))


@dataclass
class Described:
    """A drained description."""

    events: list[DescriptionEvent] = field(default_factory=list)

    @property
    def captions(self) -> Sequence[Caption]:
        """Of the last event."""
        return self.events[-1].captions

    @property
    def texts(self) -> list[str]:
        """Of the captions, in order."""
        return [caption.text for caption in self.captions]

    @property
    def counts(self) -> Counts:
        """The last ones: what is charged."""
        return self.events[-1].counts


@dataclass
class Answered:
    """A drained answer."""

    events: list[AnswerEvent] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(event.text for event in self.events)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Of the last event."""
        return self.events[-1].finish_reason

    @property
    def counts(self) -> Counts:
        """The last ones: what is charged."""
        return self.events[-1].counts


async def described(engine: VisionEngine, job: DescriptionJob) -> Described:
    """Runs a description to its end."""
    whole = Described()
    async with describing(engine, job) as events:
        async for event in events:
            whole.events.append(event)
    return whole


async def answered(engine: VisionEngine, job: QuestionJob) -> Answered:
    """Runs an answer to its end."""
    whole = Answered()
    async with answering(engine, job) as events:
        async for event in events:
            whole.events.append(event)
    return whole


def assert_cumulative(counts: Sequence[Counts]) -> None:
    """Checks that nothing that was counted ever falls; guesses may turn out too high."""
    for before, after in itertools.pairwise(counts):
        assert after.inference >= before.inference
        if before.estimated == after.estimated:
            assert after.input_tokens >= before.input_tokens
            assert after.output_tokens >= before.output_tokens
        else:
            assert before.estimated, "a count does not become a guess again"


class VisionContract:
    """Subclass it as ``class TestX(VisionContract)`` beside a fixture ``engine``."""

    model: str = ""
    question: str = "What do you see?"
    """Something that the model answers with several words."""
    bounds: Sequence[int] = (1, 4)
    """Tokens, fewer than that answer has."""
    honours_seed = True
    honours_beams = True
    honours_repetition_penalty = True
    honours_history = True
    honours_instructions = True
    repeats = True
    """The same greedy job gives the same text, alone or beside others."""
    long_answer_tokens = 2048
    """Of an answer that is broken off."""
    step_seconds = 30.0
    """Bound on the time until a closed iterator is gone; one step of the engine is far less."""

    def running(self, engine: VisionEngine) -> int | None:
        """Jobs that are open, where the engine can tell; override it."""
        del engine
        return None

    def description(
        self, *, n: int = 1, prefix: str = "", pixels: Pixels | None = None, **sampling: object
    ) -> DescriptionJob:
        """Makes a description of 6 tokens; keywords are those of `TextSampling`."""
        chosen = TextSampling(**{"max_tokens": 6, **sampling})  # type: ignore[arg-type]
        order = DescriptionOrder(model=self.model, n=n, prefix=prefix, sampling=chosen)
        return DescriptionJob(order=order, pixels=picture() if pixels is None else pixels)

    def asking(
        self,
        *,
        history: Sequence[Turn] = (),
        instructions: str = "",
        pixels: Pixels | None = None,
        **sampling: object,
    ) -> QuestionJob:
        """Makes a question to answer with 6 tokens; keywords are those of `TextSampling`."""
        order = QuestionOrder(
            model=self.model,
            question=self.question,
            history=history,
            instructions=instructions,
            sampling=TextSampling(**{"max_tokens": 6, **sampling}),  # type: ignore[arg-type]
        )
        return QuestionJob(order=order, pixels=picture() if pixels is None else pixels)

    def refuses(self, engine: VisionEngine, job: DescriptionJob | QuestionJob, name: str) -> None:
        """Checks that a job is refused before its picture is there, naming the field."""

        def check() -> None:
            if isinstance(job, DescriptionJob):
                engine.check_description(job.order)
            else:
                engine.check_question(job.order)

        with pytest.raises(InvalidArgument) as caught:
            check()
        assert caught.value.field == name

    def test_models_says_ready(self, engine: VisionEngine) -> None:
        info = {model.id: model for model in engine.models()}[self.model]
        assert info.state is ModelState.READY
        assert info.engine == engine.name

    async def test_verify_answers(self, engine: VisionEngine) -> None:
        await engine.verify(self.model)

    async def test_a_description_begins_empty_and_ends_whole(self, engine: VisionEngine) -> None:
        whole = await described(engine, self.description())
        first, *between, last = whole.events
        assert not first.captions
        assert first.counts.input_tokens > 0
        assert first.counts.output_tokens == 0
        assert not any(event.captions for event in between)
        assert [caption.index for caption in last.captions] == [0]
        assert whole.texts[0] == whole.texts[0].strip()
        assert whole.captions[0].average_logprob <= 0
        assert 1 <= whole.counts.output_tokens <= 6
        assert_cumulative([event.counts for event in whole.events])

    async def test_an_answer_begins_empty_and_ends_once(self, engine: VisionEngine) -> None:
        whole = await answered(engine, self.asking())
        first, *rest = whole.events
        assert not first.text
        assert first.counts.input_tokens > 0
        assert first.counts.output_tokens == 0
        assert whole.text
        assert len([event for event in rest if event.text]) > 1, "it streams"
        assert whole.finish_reason in tuple(FinishReason)
        assert not any(event.finish_reason for event in whole.events[:-1])
        assert_cumulative([event.counts for event in whole.events])

    async def test_max_tokens_is_a_bound_and_told(self, engine: VisionEngine) -> None:
        for most in self.bounds:
            whole = await answered(engine, self.asking(max_tokens=most))
            assert whole.counts.output_tokens == most
            assert whole.finish_reason is FinishReason.LENGTH
            described_ = await described(engine, self.description(max_tokens=most))
            assert 1 <= described_.counts.output_tokens <= most

    async def test_candidates_share_what_is_read(self, engine: VisionEngine) -> None:
        one = await described(engine, self.description())
        sampled = self.description(n=3, temperature=1.0)
        whole = await described(engine, sampled)
        assert [caption.index for caption in whole.captions] == [0, 1, 2]
        logprobs = [caption.average_logprob for caption in whole.captions]
        assert logprobs == sorted(logprobs, reverse=True)
        assert whole.counts.input_tokens == one.counts.input_tokens, "counted once"
        assert 3 <= whole.counts.output_tokens <= 18

    async def test_beams_give_candidates_or_are_refused(self, engine: VisionEngine) -> None:
        job = self.description(n=2, beams=3)
        if not self.honours_beams:
            self.refuses(engine, job, "sampling.beams")
            return
        whole = await described(engine, job)
        assert [caption.index for caption in whole.captions] == [0, 1]
        assert 2 <= whole.counts.output_tokens <= 12, "beams that were dropped do not count"

    async def test_a_repetition_penalty_is_honoured_or_refused(self, engine: VisionEngine) -> None:
        job = self.asking(repetition_penalty=1.5)
        if not self.honours_repetition_penalty:
            self.refuses(engine, job, "sampling.repetition_penalty")
            return
        assert (await answered(engine, job)).finish_reason is not None

    async def test_history_is_read_or_refused(self, engine: VisionEngine) -> None:
        job = self.asking(history=[Turn("How many are there?", "Two.")])
        if not self.honours_history:
            self.refuses(engine, job, "history")
            return
        alone = await answered(engine, self.asking())
        assert (await answered(engine, job)).counts.input_tokens > alone.counts.input_tokens

    async def test_instructions_are_read_or_refused(self, engine: VisionEngine) -> None:
        job = self.asking(instructions="Answer like a pirate.")
        if not self.honours_instructions:
            self.refuses(engine, job, "instructions")
            return
        alone = await answered(engine, self.asking())
        assert (await answered(engine, job)).counts.input_tokens != alone.counts.input_tokens

    async def test_a_prefix_is_read_and_not_repeated(self, engine: VisionEngine) -> None:
        plain = await described(engine, self.description())
        whole = await described(engine, self.description(prefix="a photo of"))
        assert whole.counts.input_tokens > plain.counts.input_tokens
        assert not whole.texts[0].startswith("a photo of")

    async def test_a_seed_repeats_beside_others(self, engine: VisionEngine) -> None:
        job = self.asking(temperature=1.0, top_p=0.9, seed=7)
        if not self.honours_seed:
            assert (await answered(engine, job)).text
            return
        alone = await answered(engine, job)
        others = [self.asking(temperature=1.3, seed=n, max_tokens=8) for n in range(3)]
        together = await asyncio.gather(*(answered(engine, one) for one in [*others, job]))
        assert together[-1].text == alone.text

    async def test_callers_do_not_see_each_other(self, engine: VisionEngine) -> None:
        jobs = [
            self.asking(max_tokens=2 + seed, pixels=picture(40 + 8 * seed, 64, seed))
            for seed in range(4)
        ]
        alone = [await answered(engine, job) for job in jobs]
        together = await asyncio.gather(*(answered(engine, job) for job in jobs))
        for one, other in zip(alone, together, strict=True):
            assert one.counts.input_tokens == other.counts.input_tokens
            if self.repeats:
                assert one.text == other.text

    async def test_descriptions_and_answers_share_the_engine(self, engine: VisionEngine) -> None:
        alone = await described(engine, self.description())
        caption, answer = await asyncio.gather(
            described(engine, self.description()), answered(engine, self.asking())
        )
        assert answer.text
        if self.repeats:
            assert caption.texts == alone.texts

    async def test_closing_stops_the_work(self, engine: VisionEngine) -> None:
        job = self.asking(max_tokens=self.long_answer_tokens)
        async with asyncio.timeout(self.step_seconds):
            async with answering(engine, job) as events:
                async for event in events:
                    if event.text:
                        break
        assert self.running(engine) in (None, 0)
        assert (await answered(engine, self.asking())).text

    async def test_a_cancelled_reader_frees_its_slot(self, engine: VisionEngine) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            job = self.description(max_tokens=self.long_answer_tokens)
            async with describing(engine, job) as events:
                async for _ in events:
                    begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        async with asyncio.timeout(self.step_seconds):
            await asyncio.wait({task})
        assert self.running(engine) in (None, 0)

    async def test_an_unknown_model_is_not_found(self, engine: VisionEngine) -> None:
        description, asked = self.description(), self.asking()
        description = replace(description, order=replace(description.order, model="nobody"))
        asked = replace(asked, order=replace(asked.order, model="nobody"))
        with pytest.raises(NotFound) as caught:
            engine.check_description(description.order)
        assert caught.value.field == "model"
        with pytest.raises(NotFound):
            engine.check_question(asked.order)
        results = await asyncio.gather(
            described(engine, description),
            answered(engine, asked),
            engine.verify("nobody"),
            answered(engine, self.asking()),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [NotFound, NotFound, NotFound, Answered]
