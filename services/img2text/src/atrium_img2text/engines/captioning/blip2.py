"""The BLIP-2 family (Li et al. 2023): a vision encoder, a Q-Former, and OPT or Flan-T5.

OPT goes on with the prompt; Flan-T5 reads it and writes a text of its own. Prompts are those
of the paper's own code: a caption goes on with a prefix, a question is asked as
``Question: ... Answer:``, and earlier turns stand before it in the same form, divided by
spaces. There is no place for instructions.

`engines/blip2.py` loads one for each entry; the batch loop runs it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import LongTensor, Tensor
from transformers import (
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    StoppingCriteriaList,
)

from atrium_common.errors import InvalidArgument, Unavailable
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

_T5_PROMPT = "a photo of"
"""What Flan-T5 reads where nothing is asked of it; its decoder needs some text."""
_T5_WINDOW = 512
"""Tokens that T5 was trained to read, and as many to write; it knows no positions beyond."""


class Blip2Model:
    """One loaded BLIP-2; meets `CaptioningModel`."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str | None,
        device: torch.device,
        context_length: int | None = None,
        description_prompt: str | None = None,
    ) -> None:
        """Loads a folder as `Blip2ForConditionalGeneration.save_pretrained` writes it. Blocks.

        Args:
            folder: Weights, configuration, tokenizer and image processor.
            dtype: See `loading_options`; beside float16 the Q-Former stays in float32.
            device: Where it runs.
            context_length: A smaller window than the model's.
            description_prompt: Stands before a caption that is asked for without a prefix.

        Raises:
            Unavailable: The type can't be had, or the checkpoint is too old.
            Exception: Whatever transformers makes of files that do not hold.
        """
        self._device = device
        self._model = Blip2ForConditionalGeneration.from_pretrained(
            folder, **loading_options(dtype, device)
        )
        place(self._model, device)
        config = self._model.config
        text = cast(PreTrainedConfig, config.text_config)
        if config.image_token_index is None:
            raise Unavailable("config.json has no image_token_index", reason="MODEL_FAILED")
        self._encoder_decoder: bool = text.is_encoder_decoder
        self._image_tokens: list[int] = [config.image_token_index] * config.num_query_tokens
        self._tokenizer = cast(
            PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder, local_files_only=True)
        )
        self._images = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self._prompt = description_prompt
        if description_prompt is None:
            self._prompt = _T5_PROMPT if self._encoder_decoder else ""
        self._read_generation_config(text)
        window = _T5_WINDOW if self._encoder_decoder else text.max_position_embeddings
        self.context_length = min(window, context_length or window)

    def check_description(self, order: DescriptionOrder) -> None:
        """Refuses nothing: every caption may have a prefix."""

    def check_question(self, order: QuestionOrder) -> None:
        """Refuses instructions."""
        if order.instructions:
            raise InvalidArgument(
                "instructions: a BLIP-2 prompt has no place for them.", field="instructions"
            )

    def prepare_description(self, order: DescriptionOrder, pixels: Pixels) -> Prepared:
        """Has the caption go on with the prefix; see `CaptioningModel`."""
        return self._prepare(order.prefix or self._prompt or "", pixels, field="prefix")

    def prepare_question(self, order: QuestionOrder, pixels: Pixels) -> Prepared:
        """Asks as BLIP-2 was taught to; see `CaptioningModel`."""
        turns = [
            f"Question: {turn.question} Answer: {turn.answer.rstrip('.')}."
            for turn in order.history
        ]
        prompt = " ".join([*turns, f"Question: {order.question} Answer:"])
        return self._prepare(prompt, pixels, field="history" if turns else "question")

    def collate(self, rows: Sequence[Prepared]) -> Inputs:
        """Pads token ids on the left; see `CaptioningModel`."""
        longest = max(len(row.features["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), self.pad_token)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            length = len(row.features["input_ids"])
            ids[at, longest - length :] = row.features["input_ids"]
            mask[at, longest - length :] = 1
        pixels = torch.stack([row.features["pixel_values"] for row in rows])
        return {
            "input_ids": ids.to(self._device),
            "attention_mask": mask.to(self._device),
            "pixel_values": pixels.to(self._device),  # the vision model casts them
        }

    def generate(
        self,
        inputs: Inputs,
        *,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
    ) -> Tensor:
        """Runs vision encoder, Q-Former and language model; see `CaptioningModel`."""
        return self._model.generate(
            pixel_values=inputs["pixel_values"],
            input_ids=cast(LongTensor, inputs["input_ids"]),
            attention_mask=cast(LongTensor, inputs["attention_mask"]),
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=criteria,
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens without special ones."""
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return cast(str, text)

    def _prepare(self, prompt: str, pixels: Pixels, *, field: str) -> Prepared:
        ids = self._image_tokens + self._encode(prompt)
        window = self.context_length
        room = window if self._encoder_decoder else window - len(ids)
        if len(ids) > window or room < 1:
            raise InvalidArgument(
                f"{field}: picture and prompt have {len(ids)} tokens, the model reads {window}.",
                field=field,
                reason="CONTEXT_LENGTH_EXCEEDED",
            )
        read = self._images(Image.fromarray(pixels), return_tensors="pt")
        features = {"input_ids": torch.tensor(ids), "pixel_values": read["pixel_values"][0]}
        return Prepared(features=features, input_tokens=len(ids), room=room)

    def _encode(self, prompt: str) -> list[int]:
        """Encodes a prompt with OPT's token before it, or T5's behind it.

        What a caller writes is text, also where it reads like ``<image>`` or an end token.
        """
        ids = self._tokenizer.encode(prompt, add_special_tokens=False, split_special_tokens=True)
        return [*ids, self._border] if self._encoder_decoder else [self._border, *ids]

    def _read_generation_config(self, text: PreTrainedConfig) -> None:
        own = self._model.generation_config
        self.defaults = model_defaults(own)
        self.end_tokens = token_ids(
            getattr(own, "eos_token_id", None), getattr(text, "eos_token_id", None)
        )
        self.pad_token: int = text.pad_token_id or 0
        self._border: int = text.eos_token_id if self._encoder_decoder else text.bos_token_id
        # The language model generates, by a generation config that is its own. T5 begins with
        # its padding where nothing else is said.
        inner = self._model.language_model.generation_config
        plain = plain_generation_config(inner, own)
        if self._encoder_decoder and plain.decoder_start_token_id is None:
            plain.decoder_start_token_id = self.pad_token
        self._model.language_model.generation_config = plain
