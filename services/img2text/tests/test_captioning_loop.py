"""Batches across requests: who shares one, what a cancel frees, what a failure costs."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from vision_contract import Described, described, picture

from atrium_common.errors import InternalError, Overloaded, Unavailable
from atrium_img2text.domain import (
    DescriptionEvent,
    DescriptionJob,
    DescriptionOrder,
    TextSampling,
)
from atrium_img2text.engines.captioning.blip2 import Blip2Model
from atrium_img2text.engines.captioning.captioner import Captioner
from atrium_img2text.engines.captioning.model import Inputs
from atrium_img2text.testing import tiny_blip2


class _Device(Blip2Model):
    """A tiny model on a device that fails when it is told to.

    Attributes:
        memory: Most rows that fit.
        bad_prompt: Length of a prompt, in tokens, that it can't read.
        lost: True makes everything fail.
        fails_at: Forward passes after which memory runs out, once; ``None`` is never.
        turns: Held while a batch runs; a test that holds it lets requests gather.
        entered: Batches that began.
        now: Seconds, of which each batch takes ten.
    """

    memory = 99
    bad_prompt = -1
    lost = False
    fails_at: int | None = None
    turns: threading.Lock
    entered = 0
    now = 0.0

    def generate(
        self,
        inputs: Inputs,
        *,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
    ) -> Tensor:
        self.entered += 1
        self.now += 10.0
        with self.turns:
            rows, length = inputs["input_ids"].shape
            if self.lost or length == self.bad_prompt:
                raise RuntimeError("injected")
            if rows * (config.num_beams or 1) > self.memory:
                raise torch.OutOfMemoryError("injected")
            if self.fails_at is not None and rows > 1:
                processors = LogitsProcessorList([self._run_out(), *processors])
            return super().generate(inputs, config=config, processors=processors, criteria=criteria)

    def _run_out(self) -> "_RunsOut":
        steps, self.fails_at = self.fails_at, None
        return _RunsOut(steps or 0)


class _RunsOut:
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._steps -= 1
        if self._steps < 0:
            raise torch.OutOfMemoryError("injected")
        return scores


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> _Device:
    folder = tiny_blip2.make(tmp_path_factory.mktemp("loop") / "opt")
    return _Device(folder, dtype="float32", device=torch.device("cpu"))


class _Bench:
    """A captioner over the device, and what it told of its end."""

    def __init__(
        self,
        device: _Device,
        *,
        max_batch: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        probe = device.prepare_description(DescriptionOrder(model="tiny"), picture())
        self.captioner = Captioner(
            device,
            probe=probe,
            name="tiny",
            max_batch=max_batch,
            threads=1,
            clock=clock,
        )

    async def together(self, *jobs: DescriptionJob) -> list[Described | BaseException]:
        """Runs jobs that all wait while a batch of somebody else runs."""
        before = self.device.entered
        with self.device.turns:
            first = asyncio.create_task(described(self.captioner, _job()))
            await _until(lambda: self.device.entered > before)
            tasks = [asyncio.create_task(described(self.captioner, job)) for job in jobs]
            await _until(lambda: self.captioner.running == 1 + len(jobs))
        await asyncio.wait({first})
        return await asyncio.gather(*tasks, return_exceptions=True)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a thread makes it so
        await asyncio.sleep(0.001)


@pytest.fixture
async def bench(device: _Device) -> AsyncIterator[_Bench]:
    device.turns = threading.Lock()
    device.memory, device.bad_prompt, device.lost, device.fails_at = 99, -1, False, None
    made = _Bench(device)
    yield made
    await asyncio.to_thread(made.captioner.close)


def _job(shown: int = 1, /, *, prefix: str = "", n: int = 1, **sampling: object) -> DescriptionJob:
    chosen = TextSampling(**{"max_tokens": 6, **sampling})  # type: ignore[arg-type]
    order = DescriptionOrder(model="tiny", prefix=prefix, n=n, sampling=chosen)
    return DescriptionJob(order=order, pixels=picture(seed=shown))


def _texts(results: list[Described | BaseException]) -> list[list[str]]:
    whole = [result for result in results if isinstance(result, Described)]
    assert len(whole) == len(results), results
    return [result.texts for result in whole]


async def test_every_mix_shares_a_batch_and_gives_what_it_gives_alone(bench: _Bench) -> None:
    jobs = [
        _job(1),
        _job(2, prefix="a photo of a red circle", max_tokens=3),
        _job(3, temperature=1.0, top_p=0.9, seed=11),
        _job(4, n=3, temperature=1.5, seed=12),
        _job(5, prefix="two", repetition_penalty=1.8),
    ]
    alone = [(await described(bench.captioner, job)).texts for job in jobs]
    assert _texts(await bench.together(*jobs)) == alone
    assert bench.captioner.batches[-1] == 7, "three candidates are three rows"


@pytest.fixture
async def still(bench: _Bench) -> AsyncIterator[_Bench]:
    """A bench whose time stands still but for the ten seconds of each batch."""
    made = _Bench(bench.device, clock=lambda: bench.device.now)
    yield made
    await asyncio.to_thread(made.captioner.close)


async def test_the_first_to_return_waits_for_the_others(still: _Bench) -> None:
    """Time stands still, so that nothing but company ends the wait."""
    await still.together(_job(1), _job(2))
    batches = len(still.captioner.batches)
    first = asyncio.create_task(described(still.captioner, _job(1)))
    await _until(lambda: still.captioner.waiting == 1)
    assert len(still.captioner.batches) == batches, "it waits"
    await described(still.captioner, _job(2))
    assert (await first).texts
    assert still.captioner.batches[batches:] == [2]


async def test_a_lone_caller_starts_at_once(still: _Bench) -> None:
    for _ in range(3):  # if it waited, it would for ever
        assert (await described(still.captioner, _job(1))).texts
    assert still.captioner.batches == [1, 1, 1]


async def test_beams_share_a_batch_with_their_like(bench: _Bench) -> None:
    jobs = [
        _job(1, beams=3, n=2),
        _job(2),
        _job(3, beams=3, n=2, prefix="a photo"),
        _job(4, beams=3, n=2, repetition_penalty=1.5),
        _job(5, beams=2),
    ]
    alone = [await described(bench.captioner, job) for job in jobs]
    results = await bench.together(*jobs)
    assert _texts(results) == [whole.texts for whole in alone]
    for whole, other in zip(alone, results, strict=True):
        assert isinstance(other, Described)
        assert whole.counts.output_tokens == other.counts.output_tokens
        for one, two in zip(whole.captions, other.captions, strict=True):
            assert one.average_logprob == pytest.approx(two.average_logprob, rel=1e-3)


async def test_one_beam_that_is_as_likely_says_the_same(bench: _Bench) -> None:
    """The books that are kept of beams agree with those of greedy rows."""
    greedy = (await described(bench.captioner, _job(3, max_tokens=1))).captions[0]
    best, *_ = (await described(bench.captioner, _job(3, max_tokens=1, beams=4, n=4))).captions
    assert best.text == greedy.text
    assert best.average_logprob == pytest.approx(greedy.average_logprob, rel=1e-4)


async def test_a_batch_holds_no_more_rows_than_it_may(device: _Device) -> None:
    device.turns = threading.Lock()
    small = _Bench(device, max_batch=4)
    jobs = [_job(seed, n=3, temperature=1.0, seed=seed) for seed in range(4)]
    try:
        results = await small.together(*jobs)
        assert [len(texts) for texts in _texts(results)] == [3] * 4
        assert max(small.captioner.batches) <= 4
    finally:
        await asyncio.to_thread(small.captioner.close)


async def test_the_text_streams_before_it_is_complete(bench: _Bench) -> None:
    counts = [event.counts for event in (await described(bench.captioner, _job())).events]
    assert counts[0].output_tokens == 0
    assert (
        counts[0].input_tokens
        == bench.device.collate([bench.device.prepare_description(_job().order, picture())])[
            "input_ids"
        ].shape[1]
    )
    assert counts[-1].output_tokens == 6


async def test_memory_that_runs_out_halves_the_batches(bench: _Bench) -> None:
    jobs = [_job(seed, temperature=1.0, seed=seed) for seed in range(7)]
    alone = [(await described(bench.captioner, job)).texts for job in jobs]
    bench.device.memory = 2
    assert _texts(await bench.together(*jobs)) == alone
    assert bench.captioner.batches[-9:] == [7, 3, *[1] * 7]


async def test_what_was_told_before_memory_ran_out_is_not_told_again(bench: _Bench) -> None:
    jobs = [_job(seed, temperature=1.0, seed=seed) for seed in range(2)]
    alone = [await described(bench.captioner, job) for job in jobs]
    bench.device.fails_at = 3
    results = await bench.together(*jobs)
    assert bench.device.fails_at is None
    for whole, other in zip(alone, results, strict=True):
        assert isinstance(other, Described)
        assert other.texts == whole.texts
        assert other.counts.output_tokens == whole.counts.output_tokens, "charged once"


async def test_a_request_too_large_alone_is_refused_and_the_others_go_on(bench: _Bench) -> None:
    bench.device.memory = 2
    results = await bench.together(_job(1), _job(2, beams=4), _job(3))
    assert isinstance(results[0], Described)
    assert isinstance(results[1], Overloaded)
    assert isinstance(results[2], Described)
    assert not bench.captioner.failure


async def test_a_bad_request_fails_alone(bench: _Bench) -> None:
    prefix = "a photo of a red circle and two blue squares"
    prepared = bench.device.prepare_description(_job(prefix=prefix).order, picture())
    bench.device.bad_prompt = prepared.input_tokens
    results = await bench.together(_job(1), _job(2, prefix=prefix), _job(3))
    assert isinstance(results[0], Described)
    assert isinstance(results[1], InternalError)
    assert "injected" not in str(results[1])
    assert isinstance(results[2], Described)
    assert not bench.captioner.failure


async def test_a_device_that_is_gone_fails_everyone_and_says_so(bench: _Bench) -> None:
    bench.device.lost = True
    results = await bench.together(_job(1), _job(2))
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert bench.captioner.failure == "RuntimeError: injected"
    with pytest.raises(Unavailable):
        await described(bench.captioner, _job(3))


async def test_closing_ends_what_runs(bench: _Bench) -> None:
    task = asyncio.create_task(described(bench.captioner, _job(max_tokens=2000)))
    await _until(lambda: bench.captioner.running == 1)
    await asyncio.to_thread(bench.captioner.close)
    with pytest.raises(Unavailable):
        await task


async def test_one_who_leaves_frees_the_row_within_a_step(bench: _Bench) -> None:
    stays = asyncio.create_task(described(bench.captioner, _job(1, max_tokens=40)))
    last: DescriptionEvent | None = None
    async with aclosing(bench.captioner.describe(_job(2, max_tokens=2000))) as events:
        async for event in events:
            last = event
            if event.counts.output_tokens >= 3:
                break
    assert last is not None
    assert last.counts.output_tokens < 200, "charged what was produced, not what was asked for"
    assert bench.captioner.running <= 1
    assert (await stays).counts.output_tokens == 40
    assert bench.captioner.running == 0


async def test_three_hundred_random_cancels_leak_nothing(bench: _Bench) -> None:
    chance = random.Random(8)  # noqa: S311

    async def visit(seed: int) -> None:
        beams = chance.choice([1, 1, 1, 1, 1, 2])
        job = _job(seed, max_tokens=chance.randint(1, 12), beams=beams)
        leaves_after = chance.randint(0, 6)
        async with aclosing(bench.captioner.describe(job)) as events:
            seen = 0
            async for _ in events:
                seen += 1
                if seen > leaves_after:
                    return

    async def impatient(seed: int) -> None:
        task = asyncio.create_task(visit(seed))
        await asyncio.sleep(chance.random() * 0.02)
        task.cancel()
        await asyncio.wait({task})

    for wave in range(10):
        seeds = range(30 * wave, 30 * wave + 30)
        await asyncio.gather(*(chance.choice([visit, impatient])(seed) for seed in seeds))
    assert bench.captioner.running == 0
    assert bench.captioner.waiting == 0
    assert not bench.captioner.failure
    assert (await described(bench.captioner, _job())).texts
