"""One run of `generate` over the rows of strangers: chosen, ended and told row by row.

The run is static: rows that ended are padded until the longest one has ended, which is soon,
for captions are short. The loop makes a `Batch` for each run, or a `BeamBatch` (`beams.py`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from atrium_img2text.domain import FinishReason
from atrium_img2text.engines.captioning.choosing import choose_tokens
from atrium_img2text.engines.captioning.model import CaptioningModel
from atrium_img2text.engines.captioning.request import Candidate, Row

StepDone = Callable[[], bool]
"""Tells readers what there is and hears who left; True if the run is to end now. Called in
the batch's thread when the prompts are read and after each step."""


class Run(Protocol):
    """What `generate` calls at each step; a `Batch` and a `BeamBatch` are one."""

    def choose(self, sequences: Tensor, scores: Tensor) -> Tensor:
        """Alters the scores of each row's next tokens, ``[rows, vocabulary]``."""
        ...

    def ended(self, sequences: Tensor) -> Sequence[bool]:
        """Tells of each row of `sequences` whether it ends here."""
        ...


class Batch:
    """Greedy and drawn rows in any mix."""

    def __init__(self, model: CaptioningModel, rows: Sequence[Row], step_done: StepDone) -> None:
        """Takes the rows.

        Args:
            model: Generates.
            rows: None of beam search; those of one request may be in several batches.
            step_done: Called after each step.
        """
        self._model = model
        self._rows = rows
        self._step_done = step_done
        self._step = 0
        self._stopped = False

    def run(self) -> None:
        """Generates until every row has ended or nobody waits for it any more.

        Raises:
            RuntimeError: The model ended before its rows did.
        """
        limit = max(row.request.limit for row in self._rows)
        generate(self._model, self._rows, generation_config(self._model, limit), self)
        if not self._stopped and any(row.live for row in self._rows):
            raise RuntimeError("the model ended before its rows did")

    def choose(self, _sequences: Tensor, scores: Tensor) -> Tensor:
        """Leaves each row only the token that it goes on with."""
        if self._step == 0:
            self._step_done()  # pictures and prompts are read: the first news
        chosen = [self._replayed(row) for row in self._rows]
        choosing = [at for at, row in enumerate(self._rows) if chosen[at] is None and row.live]
        rows = [self._rows[at] for at in choosing]
        if rows:
            logits = scores if len(rows) == len(scores) else scores[choosing]
            for at, (token, logprob) in zip(choosing, choose_tokens(logits, rows), strict=True):
                chosen[at] = token
                self._extend(self._rows[at], token, logprob)
        self._step += 1
        tokens = [self._model.pad_token if token is None else token for token in chosen]
        scores.fill_(-torch.inf)
        scores[range(len(tokens)), tokens] = 0.0
        return scores

    def ended(self, _sequences: Tensor) -> Sequence[bool]:
        """Tells which rows need no further step."""
        self._stopped = self._step_done()
        return [self._stopped or not row.live for row in self._rows]

    def _replayed(self, row: Row) -> int | None:
        """Returns what the row said at this step before memory ran out, if it did."""
        return row.tokens[self._step] if self._step < len(row.tokens) else None

    def _extend(self, row: Row, token: int, logprob: float) -> None:
        request = row.request
        row.tokens.append(token)
        row.logprob += logprob
        request.output_tokens += 1
        finish: FinishReason | None = None
        text = ""
        if token in self._model.end_tokens:
            finish = FinishReason.STOP
        else:
            text = row.writer.push(token)
            if len(row.tokens) >= request.limit:
                finish = FinishReason.LENGTH
        if finish is not None:
            text += row.writer.finish()
            row.ended = True
            request.candidates.append(
                Candidate(
                    text=row.writer.text,
                    average_logprob=row.logprob / len(row.tokens),
                    finish_reason=finish,
                )
            )
        if request.streams:
            request.fresh += text


def generation_config(
    model: CaptioningModel, limit: int, *, beams: int = 1, candidates: int = 1
) -> GenerationConfig:
    """Says everything that `generate` is to do; what is drawn is drawn in `choose`."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=limit,
        do_sample=False,
        num_beams=beams,
        num_return_sequences=candidates,
        length_penalty=1.0,
        early_stopping=False,
        repetition_penalty=1.0,
        use_cache=True,
        eos_token_id=sorted(model.end_tokens),
        pad_token_id=model.pad_token,
    )


def generate(
    model: CaptioningModel, rows: Sequence[Row], config: GenerationConfig, run: Run
) -> Tensor:
    """Runs the model over rows; returns what it returns."""
    return model.generate(
        model.collate([row.request.prepared for row in rows]),
        config=config,
        processors=LogitsProcessorList([_Choose(run)]),
        criteria=StoppingCriteriaList([_Ended(run)]),
    )


class _Choose(LogitsProcessor):
    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._run.choose(input_ids, scores)


class _Ended(StoppingCriteria):
    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        return torch.tensor(self._run.ended(input_ids), device=input_ids.device)
