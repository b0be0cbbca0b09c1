"""Describes for the evaluation, with the classes that the captioning service loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from starter_trainer.errors import TrainingError

_MOST_TOKENS = 24
_BATCH = 30


class Describer(Protocol):
    """Whatever says what pictures show."""

    def describe(self, pictures: Sequence[Image.Image], *, prompt: str = "") -> list[str]:
        """Describes each picture, in order.

        Args:
            pictures: Of any size.
            prompt: Text to go on from: an opening, or ``"Question: ... Answer:"``.
        """
        ...


class Blip2Describer:
    """A folder's model on the CPU; of several words the likeliest, no chance."""

    def __init__(self, folder: Path) -> None:
        """Loads the model.

        Raises:
            TrainingError: It can't be loaded; the message says why.
        """
        try:
            self._model = Blip2ForConditionalGeneration.from_pretrained(
                folder, local_files_only=True
            )
            self._processor = Blip2Processor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise TrainingError(f"no model to evaluate: {error}") from error

    def describe(self, pictures: Sequence[Image.Image], *, prompt: str = "") -> list[str]:
        """Describes each picture, thirty at once."""
        texts: list[str] = []
        for first in range(0, len(pictures), _BATCH):
            texts += self._batch(list(pictures[first : first + _BATCH]), prompt)
        return texts

    @torch.no_grad()
    def _batch(self, pictures: list[Image.Image], prompt: str) -> list[str]:
        read = self._processor(images=pictures, text=[prompt] * len(pictures), return_tensors="pt")
        tokens = self._model.generate(**read, max_new_tokens=_MOST_TOKENS, do_sample=False)
        told = tokens[:, read["input_ids"].shape[1] :]
        texts = self._processor.tokenizer.batch_decode(told, skip_special_tokens=True)
        return [str(text).strip() for text in texts]
