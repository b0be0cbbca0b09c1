"""The engine thread: schedule, forward, sample, hand over; once per step.

Why not transformers' own `ContinuousBatchingManager`: it samples with one set of
processors for all requests (no penalties, bias, seed or grammar of one's own), an error
in a forward ends its thread for everyone, and on a CPU its attention runs every query
against every stranger's keys under a mask, which costs more with every caller.

How requests come in and leave is `BatchingLoop`'s; what a step is stands here.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from atrium_common.errors import AtriumError, InternalError
from atrium_common.telemetry.tally import Tally
from atrium_common.work import BatchingLoop
from atrium_llm.domain import ChoiceDelta
from atrium_llm.engines.hf.attention import BLOCK, KeyValues, Segment
from atrium_llm.engines.hf.batch import PackedBatch, pack
from atrium_llm.engines.hf.sampler import Picked, Sampler
from atrium_llm.engines.hf.scheduler import Limits, Piece, Scheduler
from atrium_llm.engines.hf.sequence import Choice, Request
from atrium_llm.engines.hf.vocabulary import Vocabulary
from atrium_llm.engines.hf.writer import Writer

_log = logging.getLogger(__name__)

Forward = Callable[[PackedBatch], Tensor]
"""Runs the model: ``[wanted, vocabulary]`` float32 logits. Called in the engine thread."""


class EngineLoop(BatchingLoop[Request]):
    """Runs the requests of one model on one thread.

    `submit`, `cancel` and `stop` may be called from any thread.
    """

    def __init__(
        self,
        forward: Forward,
        vocabulary: Vocabulary,
        *,
        limits: Limits,
        layers: int,
        threads: int,
        events: asyncio.AbstractEventLoop,
        on_failure: Callable[[str], None],
        name: str,
        batches: Tally | None = None,
    ) -> None:
        """Prepares the loop; `start` starts it.

        Args:
            forward: The model.
            vocabulary: Its tokens.
            limits: Slots, cache and chunk sizes.
            layers: Number of the model's layers.
            threads: CPU threads that one operation may use.
            events: The readers' event loop.
            on_failure: Called on `events` with one line if the thread dies.
            name: Shown in stack dumps.
            batches: Counts the choices of each step.
        """
        super().__init__(events=events, on_failure=on_failure, name=name, batches=batches)
        self._forward = forward
        self._writer = Writer(vocabulary)
        self._sampler = Sampler(vocabulary.end_tokens)
        self._scheduler = Scheduler(limits, layers)
        self._layers = layers
        self._threads = threads

    @property
    def running(self) -> int:
        """Choices that hold a slot or wait for one."""
        return len(self._scheduler.running) + len(self._scheduler.waiting) + len(self._inbox)

    @property
    def cache_tokens(self) -> int:
        """Tokens that caches have room for now."""
        return self._scheduler.used_tokens

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            super()._work()

    def _turn(self) -> bool:
        pieces = self._scheduler.next_step()
        if pieces:
            self._step(pieces)
        return bool(pieces)

    def _admit(self, request: Request) -> None:
        self._scheduler.add(request.choices[0])

    def _let_go(self, request: Request) -> None:
        for choice in request.choices:
            self._scheduler.remove(choice)

    def _step(self, pieces: Sequence[Piece]) -> None:
        now = time.monotonic()
        self._count_batch(len(pieces), (piece.choice.request for piece in pieces))
        for piece in pieces:
            if piece.choice.request.admitted is None:
                piece.choice.request.admitted = now
        logits = self._try(pack(pieces))
        if logits is None and len(pieces) > 1:
            # One of them is bad: each alone, so that the others go on.
            results = [([piece], self._try(pack([piece]))) for piece in pieces]
        else:
            results = [(list(pieces), logits)]
        failed = [part[0] for part, made in results if made is None]
        self._fail(failed, all_of_them=len(failed) == len(pieces))
        for part, made in results:
            if made is not None:
                self._finish_step(part, made)

    def _try(self, batch: PackedBatch) -> Tensor | None:
        try:
            return self._forward(batch)
        except Exception:
            # The device's edge: any of its errors concerns this step, not the thread.
            _log.exception("a step of the engine failed")
            return None

    def _fail(self, failed: Sequence[Piece], *, all_of_them: bool) -> None:
        if all_of_them and self._try_one_token() is None:
            raise RuntimeError("the model can't run any more")
        error = InternalError("The generation failed.", reason="ENGINE_STEP_FAILED")
        for request in {piece.choice.request for piece in failed}:
            self._release(request, error)

    def _try_one_token(self) -> Tensor | None:
        """Tells a device that is gone from a request that is bad."""
        cache = KeyValues(self._layers)
        cache.capacity = BLOCK
        return self._try(PackedBatch([0], [0], [Segment(0, 1, cache)], [0]))

    def _finish_step(self, pieces: Sequence[Piece], logits: Tensor) -> None:
        completed = [piece.choice for piece in pieces if piece.completes]
        for piece in pieces:
            piece.choice.cache.length += piece.count
        if completed:
            self._advance_all(completed, logits)

    def _advance_all(self, completed: Sequence[Choice], logits: Tensor) -> None:
        """Samples the choices that a forward completed, and those that begin behind one."""
        rows: list[int] = []
        choices: list[Choice] = []
        for row, choice in enumerate(completed):
            request = choice.request
            if request.cancelled or request.released:  # meanwhile: what the step made is dropped
                continue
            if not request.read:
                request.read = True
                self._post(request.mailbox.put, request.event())
            started = [choice]
            if request.forks:
                forks, request.forks = request.forks, []
                self._scheduler.fork(choice, forks)
                started += [fork for fork in forks if fork.cache.length]
            rows += [row] * len(started)
            choices += started
        if choices:
            selected = logits if rows == list(range(logits.shape[0])) else logits[rows]
            self._advance(choices, self._sampler.pick(selected, choices))

    def _advance(self, choices: Sequence[Choice], picked: Sequence[Picked | AtriumError]) -> None:
        deltas: dict[Request, list[ChoiceDelta]] = {}
        for choice, result in zip(choices, picked, strict=True):
            request = choice.request
            if request.released:
                continue
            try:
                if isinstance(result, AtriumError):
                    raise result
                delta = self._writer.extend(choice, result)
            except AtriumError as error:
                deltas.pop(request, None)
                self._release(request, error)
                continue
            made = deltas.setdefault(request, [])
            if delta is not None:
                made.append(delta)
            if choice.ended:
                self._scheduler.remove(choice)
        for request, made in deltas.items():
            self._post(request.mailbox.put, request.event(made))
            if request.ended:
                self._release(request, None)
