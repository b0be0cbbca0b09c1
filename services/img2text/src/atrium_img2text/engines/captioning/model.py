"""What the batch loop asks of a family of models; `blip2` and `vlm` each meet it.

The loop knows no family: it never sees a prompt, a picture or the name of a tensor. A
family knows nothing of who shares a batch, of sampling, streaming or cancelling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from atrium_common.images import Pixels
from atrium_img2text.domain import DescriptionOrder, QuestionOrder

Inputs = Mapping[str, Tensor]
"""Keyword arguments of a model's `generate`, on its device; rows first where rows matter."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """One picture and its prompt, ready to stand in a batch.

    Attributes:
        features: What the family needs of it in `collate`; on the CPU. The loop passes it on.
        input_tokens: What is charged: tokens of the prompt and those of the picture.
        room: Most tokens that can follow before the context window is full, 1 or more.
    """

    features: Mapping[str, Tensor]
    input_tokens: int
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """How a model chooses words where a request does not say; ``None`` takes the wire's.

    Attributes:
        max_tokens: Most tokens to generate.
        temperature: 0 where its generation config does not sample.
        top_p: Above 0 up to 1.
        beams: 1 or more.
        repetition_penalty: 1 is off.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    beams: int | None = None
    repetition_penalty: float | None = None


class CaptioningModel(Protocol):
    """One loaded model.

    `check_...` run on the event loop, `prepare_...` on a thread of their own, `collate`
    and `generate` on the engine's thread, `decode` on either: none may change what another
    reads.

    Attributes:
        context_length: Most tokens that it reads and writes, as `ModelInfo` tells it.
        defaults: Of its generation config (`loading.model_defaults` reads them).
        end_tokens: Tokens that end a text.
        pad_token: What fills rows that have ended.
    """

    context_length: int
    defaults: ModelDefaults
    end_tokens: frozenset[int]
    pad_token: int

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses what the family can't do; how words are chosen is not its concern.

        Raises:
            InvalidArgument: `field` names what is refused.
        """
        ...

    def check_question(self, order: QuestionOrder) -> None:
        """As `check_description`, e.g. ``"instructions"`` or ``"history"``."""
        ...

    def prepare_description(self, order: DescriptionOrder, pixels: Pixels) -> Prepared:
        """Makes the prompt and reads the picture. Blocks for milliseconds.

        Raises:
            InvalidArgument: The context window can't hold it; `field` names what to shorten.
        """
        ...

    def prepare_question(self, order: QuestionOrder, pixels: Pixels) -> Prepared:
        """As `prepare_description`."""
        ...

    def collate(self, rows: Sequence[Prepared]) -> Inputs:
        """Joins rows of different lengths into one batch, padded on the left, on the device.

        The same object may stand in several rows (candidates of one request).
        """
        ...

    def generate(
        self,
        inputs: Inputs,
        *,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
    ) -> Tensor:
        """Runs the model's own `generate` with exactly these.

        `config` names every option that matters; the model's own generation config must not
        add to it. Returns what `generate` does: token ids, with or without the prompt's;
        the loop tells which by what the processors see first.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens without special ones, unaltered (no clean-up of spaces)."""
        ...
