"""From logits to tokens, each row by its own request's plan.

Rows that ask for nothing special go through one argmax or one draw for all of them;
only rows with penalties, biases or a grammar are visited one by one. A row is drawn by
inverting its cumulative distribution at the choice's own random number, so that a seed
repeats whatever else is in the batch. The loop calls `Sampler.pick` once per step.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atrium_common.errors import AtriumError
from atrium_llm.engines.hf.sequence import Choice

_CANDIDATES = 1024
"""Likeliest tokens that are looked at first where a tail is cut off; sorting the whole
vocabulary costs milliseconds per row, and the cut almost always lies among these."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, and its log probabilities if they were asked for.

    Attributes:
        logprob: Natural logarithm of its probability before anything was changed.
        top: The likeliest tokens and theirs.
    """

    token: int
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()


class Sampler:
    """Chooses tokens for a batch; keeps nothing between steps."""

    def __init__(self, end_tokens: Collection[int]) -> None:
        """Takes the tokens that `min_tokens` forbids."""
        self._end_tokens = list(end_tokens)

    def pick(self, logits: Tensor, choices: Sequence[Choice]) -> list[Picked | AtriumError]:
        """Chooses one token per row.

        Args:
            logits: ``[choices, vocabulary]``, float32; changed in place.

        Returns:
            In the order of the choices; an error concerns its own row only.
        """
        raw = self._raw_logprobs(logits, choices)
        errors: dict[int, AtriumError] = {}
        for row, choice in enumerate(choices):
            try:
                self._process(logits[row], choice)
            except AtriumError as error:
                errors[row] = error
                logits[row].zero_()
        tokens = self._choose(logits, choices)
        picked: list[Picked | AtriumError] = []
        for row, (choice, token) in enumerate(zip(choices, tokens, strict=True)):
            if row in errors:
                picked.append(errors[row])
            elif row in raw:
                picked.append(_with_logprobs(token, raw[row], choice.request.plan.top_logprobs))
            else:
                picked.append(Picked(token))
        return picked

    @staticmethod
    def _raw_logprobs(logits: Tensor, choices: Sequence[Choice]) -> dict[int, Tensor]:
        rows = [row for row, c in enumerate(choices) if c.request.plan.top_logprobs >= 0]
        if not rows:
            return {}
        return dict(zip(rows, logits[rows].log_softmax(-1), strict=True))

    def _process(self, row: Tensor, choice: Choice) -> None:
        plan = choice.request.plan
        if plan.counts_tokens:
            _penalize(row, choice)
        if plan.logit_bias:
            ids = torch.tensor(list(plan.logit_bias), device=row.device)
            row[ids] += torch.tensor(list(plan.logit_bias.values()), device=row.device)
        if choice.constraint is not None:
            _mask(row, choice.constraint.allowed())
        elif choice.generated < plan.min_tokens and self._end_tokens:
            row[self._end_tokens] = -torch.inf

    @staticmethod
    def _choose(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
        plans = [choice.request.plan for choice in choices]
        if all(plan.greedy for plan in plans):
            return logits.argmax(-1).tolist()
        tokens = [0] * len(plans)
        greedy = [row for row, plan in enumerate(plans) if plan.greedy]
        plain = [row for row, p in enumerate(plans) if not p.greedy and not p.truncates]
        cut = [row for row, p in enumerate(plans) if not p.greedy and p.truncates]
        if greedy:
            _put(tokens, greedy, logits[greedy].argmax(-1))
        for rows, draw in ((plain, _draw_plain), (cut, _draw_cut)):
            if rows:
                temperature = logits.new_tensor([plans[row].temperature for row in rows])
                scaled = logits[rows] / temperature[:, None]
                _put(tokens, rows, draw(scaled, [choices[row] for row in rows]))
        return tokens


def _put(tokens: list[int], rows: Sequence[int], chosen: Tensor) -> None:
    for row, token in zip(rows, chosen.tolist(), strict=True):
        tokens[row] = token


def _with_logprobs(token: int, logprobs: Tensor, count: int) -> Picked:
    top: list[tuple[int, float]] = []
    if count > 0:
        values, ids = logprobs.topk(count)
        top = list(zip(ids.tolist(), values.tolist(), strict=True))
    return Picked(token, float(logprobs[token]), top)


def _penalize(row: Tensor, choice: Choice) -> None:
    """Repetition over prompt and answer, the others over the answer, as OpenAI and vLLM do."""
    plan = choice.request.plan
    if plan.repetition_penalty != 1:
        ids = torch.tensor(sorted(set(choice.tokens)), device=row.device)
        values = row[ids]
        factor = plan.repetition_penalty
        row[ids] = torch.where(values > 0, values / factor, values * factor)
    if choice.counts:
        ids = torch.tensor(list(choice.counts), device=row.device)
        counts = row.new_tensor(list(choice.counts.values()))
        row[ids] -= plan.presence_penalty + plan.frequency_penalty * counts


def _mask(row: Tensor, allowed: bytes) -> None:
    packed = torch.frombuffer(bytearray(allowed), dtype=torch.uint8)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    forbidden = bits.view(-1)[: row.shape[0]] == 0
    known = forbidden.shape[0]
    row[:known].masked_fill_(forbidden.to(row.device), -torch.inf)
    row[known:] = -torch.inf


def _draw(weights: Tensor, choices: Sequence[Choice]) -> Tensor:
    """Inverts each row's cumulative weights at the choice's random number."""
    total = weights.cumsum(-1)
    at = weights.new_tensor([[choice.draws.next()] for choice in choices]) * total[:, -1:]
    return torch.searchsorted(total, at, right=True)[:, 0].clamp(max=weights.shape[1] - 1)


def _draw_plain(scaled: Tensor, choices: Sequence[Choice]) -> Tensor:
    return _draw(scaled.softmax(-1), choices)


def _draw_cut(scaled: Tensor, choices: Sequence[Choice]) -> Tensor:
    plans = [choice.request.plan for choice in choices]
    vocabulary = scaled.shape[1]
    whole = [vocabulary]
    sizes = [min(max(_CANDIDATES, *(plan.top_k for plan in plans)), vocabulary), *whole]
    for size in sizes:
        values, ids = scaled.topk(size, dim=-1)
        weights = _weights(scaled, values, choices)
        # A cut that keeps the last candidate may lie beyond it.
        if size == vocabulary or not bool((weights[:, -1] > 0).any()):
            break
    return ids.gather(1, _draw(weights, choices)[:, None])[:, 0]


def _weights(scaled: Tensor, values: Tensor, choices: Sequence[Choice]) -> Tensor:
    """Probabilities of the candidates, likeliest first; 0 where top_k, top_p or min_p cut."""
    plans = [choice.request.plan for choice in choices]
    rank = torch.arange(values.shape[1], device=values.device)
    top_k = torch.tensor([p.top_k or scaled.shape[1] for p in plans], device=values.device)
    weights = (values - scaled.logsumexp(-1, keepdim=True)).exp()
    weights = weights * (rank[None] < top_k[:, None])
    limited = top_k[:, None] < scaled.shape[1]
    weights = torch.where(limited, weights / weights.sum(-1, keepdim=True), weights)
    top_p = values.new_tensor([[p.top_p] for p in plans])
    min_p = values.new_tensor([[p.min_p] for p in plans])
    before = weights.cumsum(-1) - weights
    keep = (before < top_p) & (weights >= min_p * weights[:, :1])
    return weights * keep
