"""Upper bounds of what orders consume: for admission, and for the fair order of their queue."""

from dataclasses import replace

from atrium_common.domain import Usage
from atrium_img2text.domain import (
    ANSWER_TOKENS,
    CAPTION_TOKENS,
    AnalysisOrder,
    DescriptionOrder,
    QuestionOrder,
)
from atrium_img2text.reading import ReadingOrder
from atrium_img2text.steps import summed

_PICTURE_TOKENS = 1024
"""What a picture and a template take of the context. Some models read large pictures in more;
then the reservation grows."""


def description_bound(order: DescriptionOrder) -> Usage:
    """Bounds a description; a token is one byte at least."""
    return Usage(
        model=order.model,
        images=1,
        input_tokens=_PICTURE_TOKENS + _size(order.prefix),
        output_tokens=order.n * (order.sampling.max_tokens or CAPTION_TOKENS),
    )


def question_bound(order: QuestionOrder) -> Usage:
    """Bounds an answer."""
    texts = [order.question, order.instructions]
    for turn in order.history:
        texts += [turn.question, turn.answer]
    return Usage(
        model=order.model,
        images=1,
        input_tokens=_PICTURE_TOKENS + sum(map(_size, texts)),
        output_tokens=order.sampling.max_tokens or ANSWER_TOKENS,
    )


def reading_bound(order: ReadingOrder) -> Usage:
    """Bounds a reading."""
    return Usage(model=order.model, pages=order.max_pages)


def analysis_bound(order: AnalysisOrder) -> Usage:
    """Bounds an analysis by its parts together; they see one picture."""
    seen = [question_bound(question) for question in order.questions]
    if order.description is not None:
        seen.append(description_bound(order.description))
    read = [reading_bound(order.extraction)] if order.extraction is not None else []
    total = summed(Usage(model=order.models[0]), (*seen, *read))
    return replace(total, images=min(1, len(seen)))


def _size(text: str) -> int:
    return len(text.encode())
