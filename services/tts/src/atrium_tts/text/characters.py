"""Which characters can be said; every reader asks here, one character at a time."""

import unicodedata
from functools import lru_cache

_JOINERS = "\u200c\u200d"
"""Parts of words in Persian and in Indian scripts."""

_ARABIC_SIGNS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd")
_VARIATIONS = range(0xFE00, 0xFE10)
_PICTURES_FROM = 0x2190
"""Symbols from here on are arrows, boxes and pictures; the ones before (degree,
copyright, trade mark) are read aloud."""

_EAST_ASIAN_SYMBOLS = range(0x3200, 0x3400)
_SKIN_TONES = range(0x1F3FB, 0x1F400)


@lru_cache(maxsize=4096)
def sayable(character: str) -> str:
    """Returns what stands for a character in speech.

    Itself; ``" "`` for a picture or a blank; ``"\\n"`` for a line end and ``"\\f"`` for
    the end of a paragraph; ``""`` for what is not heard (controls, zero-width marks,
    private and unassigned code points).

    Args:
        character: One code point; not a surrogate.
    """
    if character in "\n\r\v\x85\u2028":
        return "\n"
    if character in "\f\u2029":
        return "\f"
    category = unicodedata.category(character)
    code = ord(character)
    if character == "\t" or category == "Zs":
        return " "
    if character in _JOINERS or character in _ARABIC_SIGNS:
        return character
    if category in ("Cc", "Cf", "Cn", "Co", "Cs", "Me") or code in _VARIATIONS:
        return ""
    if category == "Mn" and code >= 0xE0000:
        return ""
    picture = category == "So" and code >= _PICTURES_FROM and code not in _EAST_ASIAN_SYMBOLS
    return " " if picture or code in _SKIN_TONES else character


def speakable(text: str) -> bool:
    """True if there is a letter or a digit of any script."""
    return any(character.isalnum() for character in text)
