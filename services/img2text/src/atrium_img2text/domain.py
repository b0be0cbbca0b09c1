"""What a picture is described and asked with, and what comes back, in the engines' terms.

`convert.py` makes the jobs, the engines in `engines/` do them. What is read out of a page
is in `reading.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from atrium_common.images import Pixels
from atrium_img2text.reading import ReadingOrder

MAX_TOKENS = 2048
CAPTION_TOKENS = 64
ANSWER_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSampling:
    """How words are chosen; ``None`` takes the model's own default, else the one named here.

    Attributes:
        max_tokens: Most tokens to generate, 1 to 2048; `CAPTION_TOKENS`, `ANSWER_TOKENS`.
        temperature: 0 (nothing is drawn at random) to 2; 0.
        top_p: Above 0 up to 1; 1. Only with a temperature above 0.
        beams: 1 to 10; 1. More than one only where nothing is drawn at random.
        seed: The same seed, model, engine and parameters repeat the same text.
        repetition_penalty: Above 0 to 2; 1 is off; 1.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    beams: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptionOrder:
    """A description that is asked for, before its picture is there.

    Attributes:
        model: Catalogue id.
        prefix: Text that the captions continue, at most 512 characters; ``""`` for none.
        n: Captions to give, 1 to 8; more than one needs as many beams, or a temperature.
        sampling: How words are chosen.
    """

    model: str
    prefix: str = ""
    n: int = 1
    sampling: TextSampling = field(default_factory=TextSampling)


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question about the same picture, and what was answered."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionOrder:
    """A question that is asked, before its picture is there.

    Attributes:
        model: Catalogue id.
        question: 1 to 4000 characters.
        history: Earlier turns, oldest first, at most 32.
        instructions: Of the operator, at most 4000 characters; ``""`` for none.
        sampling: How words are chosen.
    """

    model: str
    question: str
    history: Sequence[Turn] = ()
    instructions: str = ""
    sampling: TextSampling = field(default_factory=TextSampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a job consumed so far; cumulative, whatever a model counts.

    Attributes:
        input_tokens: Read: the prompt and what the picture takes of the context. Counted
            once, however many candidates are asked for.
        output_tokens: Generated, over all candidates; beams that were dropped do not count.
        inference: The time that the work took, shared or not: of a batch, all of it.
        estimated: True while a provider has not told what it counted, so that the tokens
            are our own guess, which may be too high.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    inference: timedelta = timedelta()
    estimated: bool = False


class FinishReason(StrEnum):
    """Why a text ended: the model was done, or tokens or the context window were."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One caption.

    Attributes:
        index: From 0, the likeliest first.
        text: Without the prefix, without space around it.
        average_logprob: Mean log probability of its tokens; 0 where nobody tells.
    """

    index: int
    text: str
    average_logprob: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptionEvent:
    """A step of a description.

    The first one follows the reading of picture and prompt and holds no caption; the last
    one holds all of them.
    """

    counts: Counts
    captions: Sequence[Caption] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEvent:
    """A step of an answer: the text to append.

    The first one follows the reading of picture and prompt and holds no text; the last one
    alone says why the answer ended.
    """

    counts: Counts
    text: str = ""
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescriptionJob:
    """A description to make: what is asked, and the picture, upright, shape (height, width, 3)."""

    order: DescriptionOrder
    pixels: Pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionJob:
    """A question to answer: what is asked, and the picture, upright, shape (height, width, 3)."""

    order: QuestionOrder
    pixels: Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisOrder:
    """What is done with one upload, at least one of them.

    Attributes:
        description: Say what it shows.
        questions: Answer these, at most 8.
        extraction: Read its text.
    """

    description: DescriptionOrder | None = None
    questions: Sequence[QuestionOrder] = ()
    extraction: ReadingOrder | None = None

    @property
    def models(self) -> Sequence[str]:
        """Those that are asked, in the order of the parts; one may stand here repeatedly."""
        parts = (self.description, *self.questions, self.extraction)
        return tuple(part.model for part in parts if part is not None)
