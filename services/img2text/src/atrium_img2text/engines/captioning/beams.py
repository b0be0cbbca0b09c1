"""One run of beam search over requests with the same beams, candidates, limit and penalty.

transformers searches; what is done here is to hear who left, and to keep the books: the
log probability of each sentence as the model gave it, which the search's own scores are not
once there is a repetition penalty (and to get those, transformers keeps the scores of every
word at every step).
"""

from collections.abc import Sequence

from torch import Tensor

from atrium_img2text.domain import FinishReason
from atrium_img2text.engines.captioning.batch import StepDone, generate, generation_config
from atrium_img2text.engines.captioning.choosing import penalize
from atrium_img2text.engines.captioning.model import CaptioningModel
from atrium_img2text.engines.captioning.request import Candidate, Row

_Sentence = tuple[int, ...]
"""Which row it belongs to, then its tokens."""


class BeamBatch:
    """Rows of beam search. Their tokens count when the search has ended: until then there is
    no telling which ones will be in a text."""

    def __init__(self, model: CaptioningModel, rows: Sequence[Row], step_done: StepDone) -> None:
        """Takes the rows; see `group` for what they must share.

        Args:
            model: Generates.
            rows: One for each request.
            step_done: Called after each step.
        """
        self._model = model
        self._rows = rows
        self._step_done = step_done
        self._plan = rows[0].request.plan
        self._limit = rows[0].request.limit
        self._prompt: int | None = None
        self._sums: dict[_Sentence, float] = {(row,): 0.0 for row in range(len(rows))}
        self._complete: dict[_Sentence, float] = {}
        self._parents: dict[_Sentence, int] = {}
        self._logprobs: Tensor | None = None
        self._stopped = False

    def run(self) -> None:
        """Searches until every request has its texts or nobody waits for them any more."""
        plan = self._plan
        config = generation_config(
            self._model, self._limit, beams=plan.beams, candidates=plan.candidates
        )
        sequences = generate(self._model, self._rows, config, self)
        if self._stopped:
            return
        sentences = self._sentences(sequences, plan.candidates)
        for at, row in enumerate(self._rows):
            if row.live:
                self._finish(row, [self._trim(s) for s in sentences if s[0] == at])
        self._step_done()

    def choose(self, sequences: Tensor, scores: Tensor) -> Tensor:
        """Applies the penalty; notes what the model said before."""
        if self._prompt is None:
            self._prompt = sequences.shape[1]
            self._step_done()  # pictures and prompts are read: the first news
        sentences = self._sentences(sequences, self._plan.beams)
        self._parents = {sentence: row for row, sentence in enumerate(sentences)}
        self._logprobs = scores
        if self._plan.repetition_penalty != 1:
            self._logprobs = scores.clone()
            for score, (_, *said) in zip(scores, sentences, strict=True):
                penalize(score, said, self._plan.repetition_penalty)
        return scores

    def ended(self, sequences: Tensor) -> Sequence[bool]:
        """Adds up each sentence that the search may go on with or complete here."""
        self._add_up(self._sentences(sequences, len(sequences) // len(self._rows)))
        self._stopped = self._step_done() or not any(row.live for row in self._rows)
        return [self._stopped] * len(sequences)

    def _add_up(self, sentences: Sequence[_Sentence]) -> None:
        assert self._logprobs is not None  # noqa: S101 - `choose` comes first
        parents = [self._parents[sentence[:-1]] for sentence in sentences]
        last = [sentence[-1] for sentence in sentences]
        logprobs: list[float] = self._logprobs[parents, last].tolist()
        self._sums = {
            sentence: self._sums[sentence[:-1]] + logprob
            for sentence, logprob in zip(sentences, logprobs, strict=True)
        }
        for sentence, logprob in self._sums.items():
            if sentence[-1] in self._model.end_tokens or len(sentence) > self._limit:
                self._complete[sentence] = logprob

    def _sentences(self, sequences: Tensor, of_each_row: int) -> list[_Sentence]:
        tokens: list[list[int]] = sequences[:, self._prompt :].tolist()
        return [(at // of_each_row, *said) for at, said in enumerate(tokens)]

    def _trim(self, sentence: _Sentence) -> _Sentence:
        """Cuts off what fills a sentence up behind its end."""
        row, *tokens = sentence
        ends = [at for at, token in enumerate(tokens) if token in self._model.end_tokens]
        return (row, *(tokens[: ends[0] + 1] if ends else tokens))

    def _finish(self, row: Row, sentences: Sequence[_Sentence]) -> None:
        row.ended = True
        for sentence in sentences:
            tokens = sentence[1:]
            row.request.output_tokens += len(tokens)
            stopped = tokens[-1] in self._model.end_tokens
            row.request.candidates.append(
                Candidate(
                    text=self._model.decode(tokens[:-1] if stopped else tokens).strip(),
                    average_logprob=self._complete[sentence] / len(tokens),
                    finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
                )
            )


def group(row: Row) -> tuple[float, ...]:
    """Returns what rows must have in common to share a batch; without beams, nothing else."""
    plan = row.request.plan
    if plan.beams == 1:
        return (1,)
    return (plan.beams, plan.candidates, row.request.limit, plan.repetition_penalty)
