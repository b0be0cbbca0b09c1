"""Text to words as its language writes them, and words compared.

`whisper_live.py` splits drafts by this, `live/agreement.py` compares them.
"""

import re
import unicodedata
from collections.abc import Sequence

_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_SPACED = re.compile(r"\s*\S+")
_SINGLE = re.compile(r"\s*\S")
_REPEATED = 4


def split_words(text: str, language: str) -> list[str]:
    """Splits text; each word keeps its leading space and its punctuation.

    Args:
        text: Joining the result gives it back, but for spaces at its end.
        language: ISO 639-1, or ``"yue"``. Where it is written without spaces, a
            character is a word.
    """
    return (_SINGLE if language in _WITHOUT_SPACES else _SPACED).findall(text)


def bare(word: str) -> str:
    """Returns a word without case, spaces and punctuation, to be compared."""
    return "".join(c for c in word.casefold() if unicodedata.category(c)[0] not in "PZ")


def repetition(words: Sequence[str]) -> int | None:
    """Finds where a text begins to say again what it has said, ``None`` if it does not.

    Four words in a row count: Whisper tends to that in short windows, people do not.
    """
    plain = [bare(word) for word in words]
    seen: set[tuple[str, ...]] = set()
    for place in range(len(plain) - _REPEATED + 1):
        run = tuple(plain[place : place + _REPEATED])
        if run in seen:
            return place
        seen.add(run)
    return None
