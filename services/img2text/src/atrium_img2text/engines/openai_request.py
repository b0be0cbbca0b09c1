"""A job as a chat completion of an OpenAI-compatible server; `engines/openai.py` sends it."""

import base64
import math
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from atrium_common.errors import InvalidArgument
from atrium_common.images import Pixels, encode, encode_within
from atrium_img2text.domain import (
    ANSWER_TOKENS,
    CAPTION_TOKENS,
    DescriptionOrder,
    QuestionOrder,
    TextSampling,
)
from atrium_img2text.engines.openai_options import OpenAIVisionOptions

_BYTES_PER_TOKEN = 3
"""English has about four bytes per token, Chinese about three per character and token:
dividing by three errs on the high side for ordinary text."""
_MESSAGE_TOKENS = 8
_DEFAULT_REPETITION_PENALTY = 1.0


def check_sampling(model: str, sampling: TextSampling) -> None:
    """Refuses what OpenAI's API has no word for.

    Raises:
        InvalidArgument: Beams, or a repetition penalty.
    """
    asked = {
        "beams": sampling.beams not in (None, 1),
        "repetition_penalty": sampling.repetition_penalty
        not in (None, _DEFAULT_REPETITION_PENALTY),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise InvalidArgument(
                f"The provider of {model!r} does not support {name}.",
                reason="UNSUPPORTED_PARAMETER",
                field=f"sampling.{name}",
            )


def description_arguments(
    order: DescriptionOrder, image: str, options: OpenAIVisionOptions
) -> dict[str, object]:
    """Makes the arguments of a description.

    Args:
        order: What is asked for.
        image: The picture as a data URL.
        options: Of the model.
    """
    arguments = _sampling(order.sampling, CAPTION_TOKENS, options)
    if order.n > 1:
        arguments["n"] = order.n
    if options.logprobs:
        arguments["logprobs"] = True
    arguments["messages"] = [_seeing(description_prompt(order, options), image, options)]
    return arguments


def description_prompt(order: DescriptionOrder, options: OpenAIVisionOptions) -> str:
    """Returns what a description is asked for with.

    A chat completion can't be begun for the model, so that a prefix is asked for in words.
    """
    if not order.prefix:
        return options.caption_prompt
    return f"{options.caption_prompt}\nContinue this text, without repeating it: {order.prefix}"


def question_arguments(
    order: QuestionOrder, image: str, options: OpenAIVisionOptions
) -> dict[str, object]:
    """Makes the arguments of an answer: instructions, the picture with the first question."""
    arguments = _sampling(order.sampling, ANSWER_TOKENS, options)
    arguments["messages"] = list(_conversation(order, image, options))
    return arguments


def description_tokens(order: DescriptionOrder, options: OpenAIVisionOptions) -> int:
    """Guesses what a description reads."""
    return _guessed(options, description_prompt(order, options))


def question_tokens(order: QuestionOrder, options: OpenAIVisionOptions) -> int:
    """Guesses what an answer reads."""
    earlier = (text for turn in order.history for text in (turn.question, turn.answer))
    return _guessed(options, order.instructions, *earlier, order.question)


def text_tokens(size: int) -> int:
    """Guesses the tokens of a text of `size` bytes of UTF-8."""
    return math.ceil(size / _BYTES_PER_TOKEN)


def data_url(pixels: Pixels, options: OpenAIVisionOptions) -> str:
    """Writes a picture as a data URL: a PNG if it is small enough, else a JPEG.

    Raises:
        InvalidArgument: Neither is.
    """
    shown = _within(pixels, options.max_side)
    kind, data = "png", encode(shown, "png")
    if len(data) > options.max_image_bytes:
        try:
            kind, data = "jpeg", encode_within(shown, max_bytes=options.max_image_bytes)
        except ValueError as error:
            raise InvalidArgument(
                "The picture is too large for the provider of this model.", field="chunk"
            ) from error
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _within(pixels: Pixels, side: int) -> Pixels:
    """Makes a picture smaller if its longer side is over `side`; keeps its aspect."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _guessed(options: OpenAIVisionOptions, *texts: str) -> int:
    given = [text for text in texts if text]
    size = sum(len(text.encode("utf-8", "replace")) for text in given)
    return options.image_tokens + _MESSAGE_TOKENS * len(given) + text_tokens(size)


def _sampling(
    sampling: TextSampling, default_tokens: int, options: OpenAIVisionOptions
) -> dict[str, object]:
    wanted: dict[str, object | None] = {
        options.token_limit: sampling.max_tokens or default_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _conversation(
    order: QuestionOrder, image: str, options: OpenAIVisionOptions
) -> Iterator[Mapping[str, object]]:
    if order.instructions:
        yield {"role": "system", "content": order.instructions}
    questions = [*(turn.question for turn in order.history), order.question]
    for place, question in enumerate(questions):
        if place == 0:
            yield _seeing(question, image, options)
        else:
            yield {"role": "user", "content": question}
        if place < len(order.history):
            yield {"role": "assistant", "content": order.history[place].answer}


def _seeing(text: str, image: str, options: OpenAIVisionOptions) -> Mapping[str, object]:
    shown = {"url": image} | ({"detail": options.detail} if options.detail else {})
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": shown}, {"type": "text", "text": text}],
    }
