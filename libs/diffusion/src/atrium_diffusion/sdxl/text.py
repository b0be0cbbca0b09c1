"""Prompts to what the UNet is conditioned on: SDXL's two CLIP text encoders and a cache.

`model.py` calls it in the batcher's thread; only `excess` is also called while planning.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from transformers import CLIPTokenizer

from atrium_common.errors import InvalidArgument
from atrium_diffusion.domain import AppliedLora
from atrium_diffusion.model import Conditioning
from atrium_diffusion.sdxl.loading import Components

Adapted = Callable[[Sequence[AppliedLora]], AbstractContextManager[None]]
"""Makes these adapters act on the text encoders for as long as it is entered."""


class PromptEncoder:
    """Encodes prompts as diffusers' SDXL pipelines do."""

    def __init__(
        self, components: Components, *, device: torch.device, adapted: Adapted, cached: int
    ) -> None:
        """Takes its parts.

        Args:
            components: The loaded model.
            device: Where the encoders are.
            adapted: Puts a request's adapters in force.
            cached: Prompts that are remembered, 1 or more; with SDXL each takes 0.3 MB in
                half precision.
        """
        self._parts = components
        self._device = device
        self._adapted = adapted
        self._most = cached
        self._known: OrderedDict[tuple[str, tuple[AppliedLora, ...]], Conditioning] = OrderedDict()
        # A tokenizer sets its padding and truncation before each call: not for two threads.
        self._tokenizing = threading.Lock()

    @property
    def window(self) -> int:
        """Most tokens of a prompt, without those that mark its beginning and end."""
        return min(self._window(tokenizer) for tokenizer in self._tokenizers)

    def excess(self, prompt: str) -> int:
        """Tells how many tokens of a prompt are past the window; 0 if it fits. Any thread."""
        with self._tokenizing:
            return max(
                0,
                *(
                    len(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)
                    - self._window(tokenizer)
                    for tokenizer in self._tokenizers
                ),
            )

    def check(self, prompt: str, *, field: str) -> None:
        """Refuses a prompt that is longer than the window. Any thread.

        Raises:
            InvalidArgument: It is, with reason ``PROMPT_TOO_LONG``.
        """
        over = self.excess(prompt)
        if over:
            raise InvalidArgument(
                f"The {field.replace('_', ' ')} is {over} tokens over the {self.window} that the "
                "model reads; shorten it or let it be truncated.",
                reason="PROMPT_TOO_LONG",
                field=field,
            )

    def encode(
        self, prompt: str, *, loras: tuple[AppliedLora, ...], truncate: bool
    ) -> Conditioning:
        """Encodes a prompt, or finds it in the cache.

        Args:
            prompt: The text; an empty one gives zeros where the model asks for that.
            loras: Adapters that act on the encoders.
            truncate: Cut a prompt to the window instead of refusing it.

        Raises:
            InvalidArgument: As in `check`.
        """
        if not truncate:
            self.check(prompt, field="prompt")
        key = (prompt, loras)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._encode(prompt, loras)
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return known

    @torch.no_grad()
    def _encode(self, prompt: str, loras: tuple[AppliedLora, ...]) -> Conditioning:
        """Joins the last but one hidden states of both; pools by the second."""
        parts = self._parts
        with self._adapted(loras):
            first = parts.text_encoder(
                self._tokens(parts.tokenizer, prompt), output_hidden_states=True
            )
            second = parts.text_encoder_2(
                self._tokens(parts.tokenizer_2, prompt), output_hidden_states=True
            )
        embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        embeds = embeds.to(parts.text_encoder_2.dtype)
        pooled = second.text_embeds
        if not prompt and parts.force_zeros_for_empty_prompt:
            embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
        return Conditioning(embeds=embeds, pooled=pooled)

    def _tokens(self, tokenizer: CLIPTokenizer, prompt: str) -> torch.Tensor:
        with self._tokenizing:
            tokens = tokenizer(
                prompt,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
        ids: torch.Tensor = tokens.input_ids
        return ids.to(self._device)

    @property
    def _tokenizers(self) -> tuple[CLIPTokenizer, CLIPTokenizer]:
        return self._parts.tokenizer, self._parts.tokenizer_2

    def _window(self, tokenizer: CLIPTokenizer) -> int:
        return int(tokenizer.model_max_length) - tokenizer.num_special_tokens_to_add()
