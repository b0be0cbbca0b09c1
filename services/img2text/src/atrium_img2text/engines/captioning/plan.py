"""What a request's sampling comes to once a model's defaults are filled in.

`captioner.py` makes a plan when a request is checked and when it begins; batches only read
numbers.
"""

import random
from dataclasses import dataclass
from typing import TypeVar

from atrium_common.errors import InvalidArgument
from atrium_img2text.domain import TextSampling
from atrium_img2text.engines.captioning.model import ModelDefaults

NumberT = TypeVar("NumberT", int, float)

_GREEDY = 1e-5
"""Temperatures below draw the likeliest token in any case, and dividing by them overflows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPlan:
    """How every token of a request is chosen; nothing is ``None`` but the seed.

    Attributes:
        max_tokens: Most tokens of each candidate.
        temperature: 0 takes the likeliest token.
        top_p: Above 0 up to 1; without effect where nothing is drawn.
        beams: 1 is no beam search.
        repetition_penalty: Over what was generated; prompts are not repetitions. 1 is off.
        candidates: Texts to give; of beam search, the best ones.
        seed: ``None`` draws differently every time.
    """

    max_tokens: int
    temperature: float
    top_p: float
    beams: int
    repetition_penalty: float
    candidates: int
    seed: int | None


PROBE = GenerationPlan(
    max_tokens=1,
    temperature=0.0,
    top_p=1.0,
    beams=1,
    repetition_penalty=1.0,
    candidates=1,
    seed=None,
)
"""One token, to see whether a model works."""


def plan_generation(
    sampling: TextSampling, defaults: ModelDefaults, *, candidates: int, max_tokens: int
) -> GenerationPlan:
    """Fills in a model's defaults. What a request names wins over a default beside it.

    Args:
        sampling: The request's, in the wire's ranges.
        defaults: The model's.
        candidates: Texts that are asked for.
        max_tokens: Where neither request nor model bounds the tokens.

    Raises:
        InvalidArgument: What is asked for contradicts itself: beams or top_p and the
            temperature, or more candidates than ways to find them.
    """
    beams, temperature = _beams_or_drawing(sampling, defaults)
    if sampling.top_p is not None and sampling.top_p < 1 and temperature == 0:
        raise _bad("sampling.top_p", "needs a temperature above 0")
    if candidates > 1 and temperature == 0 and candidates > beams:
        raise _bad("n", f"above 1 needs as many beams ({candidates}) or a temperature above 0")
    return GenerationPlan(
        max_tokens=_first(sampling.max_tokens, defaults.max_tokens, max_tokens),
        temperature=temperature,
        top_p=_first(sampling.top_p, defaults.top_p, 1.0),
        beams=beams,
        repetition_penalty=_first(sampling.repetition_penalty, defaults.repetition_penalty, 1.0),
        candidates=candidates,
        seed=sampling.seed,
    )


def _beams_or_drawing(sampling: TextSampling, defaults: ModelDefaults) -> tuple[int, float]:
    """Beam search and drawing at random exclude each other: returns beams and temperature."""
    asked_beams, asked_temperature = sampling.beams, sampling.temperature
    if asked_beams is not None and asked_beams > 1:
        if asked_temperature:
            raise _bad("sampling.beams", "above 1 needs the temperature 0")
        return asked_beams, 0.0
    temperature = _first(asked_temperature, defaults.temperature, 0.0)
    if temperature >= _GREEDY:
        return 1, temperature
    return _first(asked_beams, defaults.beams, 1), 0.0


def _first(asked: NumberT | None, default: NumberT | None, otherwise: NumberT) -> NumberT:
    if asked is not None:
        return asked
    return default if default is not None else otherwise


def _bad(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {why}.", field=field)


class Draws:
    """The random numbers of one candidate: the same for the same seed, whoever runs beside it.

    Rows draw by inverting their cumulative distribution at their own number, so that neither
    the device nor the batch has a say in it.
    """

    def __init__(self, seed: int | None, candidate: int) -> None:
        """Takes the request's seed and the candidate's index; no seed is a fresh one."""
        # Not for secrets: the numbers only pick tokens.
        self._random = random.Random() if seed is None else random.Random(f"{seed}:{candidate}")  # noqa: S311

    def next(self) -> float:
        """Returns the next number, 0 or more and below 1."""
        return self._random.random()
