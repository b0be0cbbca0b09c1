"""Upper bounds of what seeing and reading may consume; admission reserves them.

What is read is bounded by bytes, as other text is (`bounds.py`); a picture counts as more
than any model of today makes of one.
"""

from collections.abc import Sequence
from typing import BinaryIO

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Usage
from atrium_gateway.api.bounds import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    TEMPLATE_TOKENS,
    answer_bound,
    text_tokens,
)
from atrium_gateway.upstreams.seeing import Description, Extraction, Question

CAPTION_TOKENS = 64
ANSWER_TOKENS = 256
DEFAULT_PAGES = 20
"""Of texts and pages whose number is left open; as `atrium.img2text.v1` says."""
_ONE_PAGE = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
"""How files begin that have one page; those of TIFF and PDF may have more."""


def vision_bound(
    entry: ModelEntry, description: Description | None, questions: Sequence[Question]
) -> Usage:
    """Most that captions and answers on one picture may consume."""
    window = entry.context_length
    read = written = 0
    if description is not None:
        tokens = description.sampling.max_tokens or CAPTION_TOKENS
        read += _read((description.prefix,), window)
        written += answer_bound(tokens, window) * (description.n or 1)
    for question in questions:
        tokens = question.sampling.max_tokens or ANSWER_TOKENS
        turns = [text for turn in question.history for text in (turn.question, turn.answer)]
        read += _read((question.instructions, *turns, question.question), window)
        written += answer_bound(tokens, window)
    return Usage(model=entry.id, images=1, input_tokens=read, output_tokens=written, estimated=True)


def pages_bound(extraction: Extraction, document: BinaryIO) -> int:
    """Most pages that may be read of a document, which stands at its beginning."""
    head = document.read(max(map(len, _ONE_PAGE)))
    document.seek(0)
    return 1 if head.startswith(_ONE_PAGE) else extraction.max_pages or DEFAULT_PAGES


def _read(texts: Sequence[str], window: int | None) -> int:
    tokens = IMAGE_TOKENS + TEMPLATE_TOKENS
    tokens += sum(MESSAGE_TOKENS + text_tokens(text) for text in texts)
    return min(tokens, window) if window else tokens
