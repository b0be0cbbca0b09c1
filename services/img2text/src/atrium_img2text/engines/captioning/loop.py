"""The engine's thread: gathers waiting rows into a batch, runs it to its end, and again.

Why static batches and not continuous ones, as the language models have: a caption is some ten
tokens behind a picture of hundreds, so that a batch is over before joining it would pay, and
every model of transformers runs its own `generate` unaltered.

How requests come in and leave is `BatchingLoop`'s; who shares a batch and what happens when
one fails is said here.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import torch

from atrium_common.errors import InternalError, Overloaded
from atrium_common.telemetry.tally import Tally
from atrium_common.work import BatchingLoop
from atrium_img2text.engines.captioning.batch import Batch
from atrium_img2text.engines.captioning.beams import BeamBatch, group
from atrium_img2text.engines.captioning.budget import RowBudget
from atrium_img2text.engines.captioning.gathering import Gathering
from atrium_img2text.engines.captioning.model import CaptioningModel, Prepared
from atrium_img2text.engines.captioning.plan import PROBE
from atrium_img2text.engines.captioning.request import Request, Row

_log = logging.getLogger(__name__)

_RETRY_AFTER = timedelta(seconds=5)


class CaptioningLoop(BatchingLoop[Request]):
    """Runs the requests of one model on one thread.

    `submit`, `cancel` and `stop` may be called from any thread.

    Attributes:
        batches: Rows of the latest batches, those that failed too; the newest last.
    """

    def __init__(
        self,
        model: CaptioningModel,
        *,
        probe: Prepared,
        max_batch: int,
        threads: int,
        events: asyncio.AbstractEventLoop,
        on_failure: Callable[[str], None],
        name: str,
        clock: Callable[[], float] = time.monotonic,
        batches: Tally | None = None,
    ) -> None:
        """Prepares the loop; `start` starts it.

        Args:
            model: Generates; from now on only in this thread.
            probe: Tried when a row failed alone: if this fails too, the device is gone.
            max_batch: Most rows of a batch; a beam is a row.
            threads: CPU threads that one operation may use.
            events: The readers' event loop.
            on_failure: Called on `events` with one line if the thread dies.
            name: Shown in stack dumps.
            clock: Monotonic seconds.
            batches: Counts the rows of each batch.
        """
        super().__init__(events=events, on_failure=on_failure, name=name, batches=batches)
        self._model = model
        self._probe = probe
        self._threads = threads
        self._clock = clock
        self._budget = RowBudget(max_batch)
        self._gathering = Gathering(clock=clock)
        self._waiting: deque[Row] = deque()
        self.batches: deque[int] = deque(maxlen=64)

    @property
    def running(self) -> int:
        """Requests that were taken in and not let go."""
        return len(self._requests) + len(self._inbox)

    @property
    def waiting(self) -> int:
        """Rows that no batch has taken."""
        return len(self._waiting)

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            super()._work()

    def _turn(self) -> bool:
        self._hand_over()  # who left need not wait for a batch to be told
        self._gather()
        rows = self._next_rows()
        if rows and not self._stopping:
            self._gathering.started()
            self._run_rows(rows)
        return bool(rows)

    def _admit(self, request: Request) -> None:
        self._waiting.extend(request.rows)

    def _let_go(self, request: Request) -> None:
        self._waiting = deque(row for row in self._waiting if row.request is not request)

    def _gather(self) -> None:
        """Waits for company while that is worth it."""
        while self._waiting and not self._stopping:
            patience = self._gathering.patience(len(self._waiting), self._budget.rows)
            if patience <= 0:
                return
            self._wake.wait(patience)
            self._wake.clear()
            self._collect()

    def _next_rows(self) -> list[Row]:
        """Takes the first row that waits and those that can share its batch, in order."""
        rows: list[Row] = []
        left: deque[Row] = deque()
        room = self._budget.rows
        for row in self._waiting:
            if not rows or (row.beams <= room and group(row) == group(rows[0])):
                rows.append(row)
                room -= row.beams
            else:
                left.append(row)
        self._waiting = left
        return rows

    def _run_rows(self, rows: Sequence[Row]) -> None:
        began = self._clock()
        self.batches.append(len(rows))
        self._count_batch(len(rows), (row.request for row in rows))
        for row in rows:
            if row.request.begun is None:
                row.request.begun = began
        failure = self._try(rows)
        if failure is None:
            self._budget.succeeded()
            self._gathering.ended(len(rows), self._clock() - began)
        elif isinstance(failure, torch.OutOfMemoryError):
            self._out_of_memory(rows)
        else:
            self._failed(rows)

    def _try(self, rows: Sequence[Row]) -> Exception | None:
        """Runs a batch; what it raised comes back without the frames that hold its tensors."""
        kind = Batch if rows[0].beams == 1 else BeamBatch
        try:
            kind(self._model, rows, lambda: self._step_done(rows)).run()
        except torch.OutOfMemoryError as error:
            return error.with_traceback(None)
        except Exception as error:
            # The device's edge: any of its errors concerns these rows, not the thread.
            _log.exception("a batch failed")
            return error.with_traceback(None)
        return None

    def _step_done(self, rows: Sequence[Row]) -> bool:
        now = self._clock()
        for request in _requests(rows):
            if request.released:
                continue
            if (news := request.news(now)) is not None:
                self._post(request.mailbox.put, news)
            if request.complete:
                self._release(request, None)
        self._collect()
        self._hand_over()
        return self._stopping

    def _out_of_memory(self, rows: Sequence[Row]) -> None:
        """Lets the rows wait for smaller batches; a row that was alone has to go."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) == 1:
            _log.warning("no memory for a single row")
            error = Overloaded("There is not enough memory for this.", retry_after=_RETRY_AFTER)
            self._release(rows[0].request, error)
            return
        self._budget.shrink(sum(row.beams for row in rows))
        _log.warning("memory ran out; batches have at most %d rows now", self._budget.rows)
        self._waiting.extendleft(row for row in reversed(rows) if row.live)

    def _failed(self, rows: Sequence[Row]) -> None:
        """Finds out who is bad: runs each row alone, so that the others go on."""
        if len(rows) > 1:
            for row in rows:
                if row.live:
                    self._run_rows([row])
            return
        self._check_device()
        error = InternalError("The generation failed.", reason="ENGINE_STEP_FAILED")
        self._release(rows[0].request, error)

    def _check_device(self) -> None:
        """Raises, and so ends the thread, if nothing can be generated any more."""
        request = Request.of(self._probe, PROBE, self._model.decode)
        Batch(self._model, request.rows, lambda: False).run()


def _requests(rows: Iterable[Row]) -> Iterable[Request]:
    """Returns the requests of rows, each once, in order."""
    return dict.fromkeys(row.request for row in rows)
