"""Conversations about a picture in a model's own chat template, for `engines/vlm_model.py`.

What a template has room for is found out once, by rendering words that stand nowhere else:
templates say it nowhere, and some drop in silence what they have no place for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import jinja2
import numpy as np
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from atrium_common.errors import InvalidArgument, MediaError
from atrium_common.images import Pixels
from atrium_img2text.domain import DescriptionOrder, QuestionOrder
from atrium_img2text.engines.vlm_processor import reserved_tokens, tokenizer_of

Message = Mapping[str, object]
"""One message: its ``role``, and its ``content`` in parts."""

_MARK = "quokka"
_GREY = np.full((64, 64, 3), 128, np.uint8)
_LONG = "a b c d"


class ChatTemplate:
    """Renders conversations with one picture, in the first message of the user.

    Attributes:
        takes_instructions: Whether there is a place for the operator's.
        takes_history: Whether there is a place for earlier turns.
        takes_prefix: Whether an answer can be begun for the model.
        per_token: Names of the tensors with a value for each token, the tokens among them.
    """

    def __init__(self, processor: ProcessorMixin) -> None:
        """Finds out what the template takes.

        Raises:
            ValueError: There is no template, or it takes no picture with a text.
            Exception: Whatever else the processor raises for files that do not hold.
        """
        self._processor = processor
        self._tokenizer = tokenizer_of(processor)
        self._reserved = reserved_tokens(processor)
        if not processor.chat_template:
            raise ValueError("the model has no chat template")
        short, long = (self._tensors([_seeing(text, _GREY)]) for text in ("a", _LONG))
        self.per_token = frozenset(
            name for name, tensor in short.items() if tensor.shape != long[name].shape
        )
        plain = [_seeing("a")]
        self.takes_instructions = self._shows([_said("system", _MARK), *plain])
        self.takes_history = self._shows([*plain, _said("assistant", _MARK), _said("user", "a")])
        self.takes_prefix = self._shows([*plain, _said("assistant", _MARK)], begun=True)

    def description(
        self, order: DescriptionOrder, prompt: str, pixels: Pixels
    ) -> Mapping[str, Tensor]:
        """Reads a picture that `prompt` asks to describe, the answer begun with the prefix.

        Raises:
            MediaError: The model can't read a picture of this shape.
            InvalidArgument: A text holds a control token of the model; `field` names it.
        """
        self._check([("prefix", order.prefix)])
        messages = [_seeing(prompt, pixels)]
        prefix = order.prefix.strip()  # as templates do
        if not prefix:
            return self._read(messages, pixels)
        return self._read([*messages, _said("assistant", prefix)], pixels, begun=True)

    def question(self, order: QuestionOrder, pixels: Pixels) -> Mapping[str, Tensor]:
        """Reads a picture and a conversation about it; raises as `description`."""
        self._check(_texts(order))
        messages: list[Message] = []
        if order.instructions:
            messages.append(_said("system", order.instructions))
        asked = [*(turn.question for turn in order.history), order.question]
        messages.append(_seeing(asked[0], pixels))
        for turn, question in zip(order.history, asked[1:], strict=True):
            messages += [_said("assistant", turn.answer), _said("user", question)]
        return self._read(messages, pixels)

    def _read(
        self, messages: Sequence[Message], pixels: Pixels, *, begun: bool = False
    ) -> Mapping[str, Tensor]:
        """Returns what the model reads; the token ids have the shape ``[1, length]``."""
        try:
            return self._tensors(messages, begun=begun)
        except ValueError as error:
            height, width = pixels.shape[:2]
            raise MediaError(
                f"The model can't read a picture of {width} x {height} pixels.", field="chunk"
            ) from error

    def _tensors(self, messages: Sequence[Message], *, begun: bool = False) -> Mapping[str, Tensor]:
        read = cast("Mapping[str, object]", self._rendered(messages, begun=begun, tokenize=True))
        return {name: value for name, value in read.items() if isinstance(value, Tensor)}

    def _check(self, texts: Iterable[tuple[str, str]]) -> None:
        """Refuses texts that the model would take for pictures, or for the end of a message."""
        for field, text in texts:
            written = self._tokenizer.encode(text, add_special_tokens=False)
            for token in self._reserved.intersection(written):
                raise InvalidArgument(
                    f"{field}: {self._tokenizer.decode(token)!r} is a control token of this model.",
                    field=field,
                )

    def _shows(self, messages: Sequence[Message], *, begun: bool = False) -> bool:
        try:
            rendered = str(self._rendered(messages, begun=begun))
        except (jinja2.TemplateError, ValueError, TypeError, KeyError):  # as templates refuse
            return False
        return rendered.endswith(_MARK) if begun else _MARK in rendered

    def _rendered(
        self, messages: Sequence[Message], *, begun: bool = False, tokenize: bool = False
    ) -> object:
        """Returns a prompt, as text or as tensors; the last message goes on if it is `begun`."""
        return self._processor.apply_chat_template(
            cast("list[dict[str, str]]", messages),  # narrower than what templates take
            tokenize=tokenize,
            return_dict=tokenize,
            return_tensors="pt",
            add_generation_prompt=not begun,
            continue_final_message=begun,
        )


def _texts(order: QuestionOrder) -> Iterator[tuple[str, str]]:
    """Gives what a caller wrote, with the field that it stands in."""
    yield "instructions", order.instructions
    for place, turn in enumerate(order.history):
        yield f"history[{place}].question", turn.question
        yield f"history[{place}].answer", turn.answer
    yield "question", order.question


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _seeing(text: str, pixels: Pixels | None = None) -> Message:
    image: dict[str, Any] = {"type": "image"}
    if pixels is not None:
        image["image"] = Image.fromarray(pixels)  # whose axes need no guessing
    return {"role": "user", "content": [image, {"type": "text", "text": text}]}
