"""Any image-text-to-text model of transformers as a family of the captioning loop.

What differs between such models stands in their own files: the processor makes pictures to
tensors and a chat template makes conversations to prompts (`vlm_chat.py`). `engines/vlm.py`
loads one for each entry.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)

from atrium_common.errors import InvalidArgument
from atrium_common.images import Pixels
from atrium_img2text.domain import DescriptionOrder, QuestionOrder
from atrium_img2text.engines.captioning.loading import (
    loading_options,
    model_defaults,
    place,
    plain_generation_config,
    token_ids,
)
from atrium_img2text.engines.captioning.model import Inputs, Prepared
from atrium_img2text.engines.vlm_chat import ChatTemplate
from atrium_img2text.engines.vlm_processor import load_processor, tokenizer_of


class VlmModel:
    """One loaded model; meets `CaptioningModel`."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str | None,
        device: torch.device,
        caption_prompt: str,
        max_side: int,
        context_length: int | None = None,
    ) -> None:
        """Loads a folder as the model hub lays it out. Blocks; runs no code of the folder.

        Args:
            folder: Weights, configuration, tokenizer, chat template and processor.
            dtype: See `loading_options`.
            device: Where it runs.
            caption_prompt: What a description is asked for with.
            max_side: Longest side of a picture, in pixels; a larger one is made smaller.
            context_length: A smaller window than the model's.

        Raises:
            Unavailable: The type can't be had.
            Exception: Whatever transformers makes of files that do not hold.
        """
        self._device = device
        self._caption_prompt = caption_prompt
        self._max_side = max_side
        processor = load_processor(folder)
        self._template = ChatTemplate(processor)
        # Its own, because reading prompts and writing answers are on different threads.
        self._tokenizer = copy.deepcopy(tokenizer_of(processor))
        self._model = _loaded(folder, dtype, device)
        self._float_type = torch.float16 if dtype == "int8" else self._model.dtype
        self._read_configuration(context_length)

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses a prefix where the template ends every message."""
        if order.prefix and not self._template.takes_prefix:
            raise _unsupported("prefix", order.model)

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses history and instructions where the template has no place for them."""
        if order.history and not self._template.takes_history:
            raise _unsupported("history", order.model)
        if order.instructions and not self._template.takes_instructions:
            raise _unsupported("instructions", order.model)

    def prepare_description(self, order: DescriptionOrder, pixels: Pixels) -> Prepared:
        """Asks with the caption prompt; see `CaptioningModel`."""
        shown = self._shown(pixels)
        read = self._template.description(order, self._caption_prompt, shown)
        return self._prepared(read, "prefix" if order.prefix else "chunk")

    def prepare_question(self, order: QuestionOrder, pixels: Pixels) -> Prepared:
        """Asks as the chat template has it; see `CaptioningModel`."""
        read = self._template.question(order, self._shown(pixels))
        return self._prepared(read, "history" if order.history else "question")

    def collate(self, rows: Sequence[Prepared]) -> Inputs:
        """Pads what belongs to tokens on the left, and joins pictures; see `CaptioningModel`."""
        longest = max(row.features["input_ids"].shape[1] for row in rows)
        batch: dict[str, Tensor] = {}
        for name in rows[0].features:
            parts = [row.features[name] for row in rows]
            if name in self._template.per_token:
                filling = self.pad_token if name == "input_ids" else 0
                joined = torch.cat([_on_the_left(part, longest, filling) for part in parts])
            else:
                joined = _joined(parts)
            if joined.is_floating_point():
                joined = joined.to(self._float_type)
            batch[name] = joined.to(self._device)
        return batch

    def generate(
        self,
        inputs: Inputs,
        *,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
    ) -> Tensor:
        """Runs the model; see `CaptioningModel`."""
        made = cast(Any, self._model).generate(  # which models mix in, and do not declare
            **inputs,
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=criteria,
        )
        return cast(Tensor, made)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens without special ones."""
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return cast(str, text)

    def _read_configuration(self, context_length: int | None) -> None:
        own = self._model.generation_config
        self.defaults = model_defaults(own)
        end = self._tokenizer.eos_token_id
        self.end_tokens = token_ids(own.eos_token_id, cast("int | None", end))
        padding = (self._tokenizer.pad_token_id, own.pad_token_id, *sorted(self.end_tokens), 0)
        self.pad_token = next(token for token in padding if isinstance(token, int))
        self._model.generation_config = plain_generation_config(own)
        text = self._model.config.get_text_config()
        window = int(text.max_position_embeddings)
        self.context_length = min(window, context_length or window)

    def _shown(self, pixels: Pixels) -> Pixels:
        """Makes a picture smaller if its longer side is over the limit; keeps its aspect."""
        height, width = pixels.shape[:2]
        scale = self._max_side / max(height, width)
        if scale >= 1:
            return pixels
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

    def _prepared(self, read: Mapping[str, Tensor], field: str) -> Prepared:
        length = read["input_ids"].shape[1]
        room = self.context_length - length
        if room < 1:
            raise InvalidArgument(
                f"{field}: picture and prompt have {length} tokens, the model reads and writes "
                f"{self.context_length}.",
                field=field,
                reason="CONTEXT_LENGTH_EXCEEDED",
            )
        return Prepared(features=read, input_tokens=length, room=room)


def _loaded(folder: Path, dtype: str | None, device: torch.device) -> PreTrainedModel:
    options = loading_options(dtype, device)
    model = cast(
        PreTrainedModel,
        AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=False, **options),
    )
    place(model, device)
    return model


def _on_the_left(part: Tensor, length: int, filling: int) -> Tensor:
    """Fills the second axis up to `length`, before what is there."""
    others = [0, 0] * (part.dim() - 2)
    return pad(part, [*others, length - part.shape[1], 0], value=filling)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Joins pictures along their first axis; smaller ones are filled up with zeros.

    Models that cut pictures into tiles leave out those that are all zero, or are told the
    sizes in a tensor of its own.
    """
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    filled = []
    for part in parts:
        missing = [most - size for most, size in zip(shape, part.shape[1:], strict=True)]
        filled.append(pad(part, [side for lack in reversed(missing) for side in (0, lack)]))
    return torch.cat(filled)


def _unsupported(field: str, model: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field}: the template of {model!r} has no place for it.",
        reason="UNSUPPORTED_PARAMETER",
        field=field,
    )
