"""What a request's sampling comes to once a model's defaults are filled in.

Engines that sample themselves resolve a `Sampling` once and then only read numbers.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from atrium_common.errors import InvalidArgument
from atrium_llm.domain import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """A model's own defaults, from its generation config; the rest are the wire's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How every token of a request is chosen; nothing is ``None``.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 is off.
        top_logprobs: -1 returns no log probabilities.
    """

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[int, float]
    min_tokens: int
    top_logprobs: int

    @property
    def greedy(self) -> bool:
        """True if the likeliest token is taken."""
        return self.temperature < 1e-5

    @property
    def truncates(self) -> bool:
        """True if some tokens are cut off before drawing."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def counts_tokens(self) -> bool:
        """True if what was said changes what may be said."""
        return (
            self.presence_penalty != 0
            or self.frequency_penalty != 0
            or self.repetition_penalty != 1
        )


def plan_sampling(sampling: Sampling, defaults: Defaults, *, vocabulary: int) -> SamplingPlan:
    """Fills in a model's defaults.

    Args:
        sampling: The request's, in the wire's ranges.
        defaults: The model's.
        vocabulary: Number of token ids.

    Raises:
        InvalidArgument: `logit_bias` names a token that the model does not have.
    """
    for token in sampling.logit_bias:
        if not 0 <= token < vocabulary:
            field = "job.sampling.logit_bias"
            raise InvalidArgument(
                f"{field} names token {token}, the vocabulary has {vocabulary}.", field=field
            )
    return SamplingPlan(
        temperature=_or(sampling.temperature, defaults.temperature),
        top_p=_or(sampling.top_p, defaults.top_p),
        top_k=sampling.top_k if sampling.top_k is not None else defaults.top_k,
        min_p=_or(sampling.min_p, defaults.min_p),
        presence_penalty=_or(sampling.presence_penalty, 0.0),
        frequency_penalty=_or(sampling.frequency_penalty, 0.0),
        repetition_penalty=_or(sampling.repetition_penalty, defaults.repetition_penalty),
        logit_bias=sampling.logit_bias,
        min_tokens=sampling.min_tokens,
        top_logprobs=-1 if sampling.top_logprobs is None else sampling.top_logprobs,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


class Draws:
    """The random numbers of one choice: the same for the same seed, whoever runs beside it."""

    def __init__(self, seed: int | None, choice: int) -> None:
        """Takes the request's seed and the choice's index; no seed is a fresh one."""
        # Not for secrets: the numbers only pick tokens.
        self._random = random.Random() if seed is None else random.Random(f"{seed}:{choice}")  # noqa: S311

    def next(self) -> float:
        """Returns the next number, 0 or more and below 1."""
        return self._random.random()
