"""Amounts of money in the order in which they are said; `phonemes.py` calls it.

espeak reads signs where they stand: "$3.50" becomes "dollar three point five zero". Only
English is rewritten; other languages mostly write the sign behind the amount, where
espeak's reading is right but for the plural.
"""

import re
from collections.abc import Mapping

_UNITS: Mapping[str, tuple[str, str, str, str]] = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
}
"""Sign -> name of one, of several, of one hundredth, of several."""

_SCALES: Mapping[str, str] = {
    "k": "thousand",
    "m": "million",
    "bn": "billion",
    "b": "billion",
    "tn": "trillion",
}
_AMOUNT = re.compile(
    r"(?P<sign>[$£€])(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<part>\d+))?"
    r"(?:\s?(?P<word>(?:thousand|million|billion|trillion)\b)|(?P<letter>(?:bn|tn|[kmb])\b))?"
    r"(?![\d,.]*\d)",
    re.IGNORECASE,
)


def spoken_money(text: str) -> str:
    """Rewrites amounts in an English text: "$3.50" to "3 dollars and 50 cents"."""
    return _AMOUNT.sub(_spoken, text)


def _spoken(match: re.Match[str]) -> str:
    one, several, hundredth, hundredths = _UNITS[match["sign"]]
    whole, part = match["whole"], match["part"]
    scale = match["word"] or _SCALES.get((match["letter"] or "").lower())
    if scale is not None:
        amount = f"{whole}.{part}" if part else whole
        return f"{amount} {scale} {several}"
    if part is not None and len(part) != 2:
        return f"{whole}.{part} {several}"
    name = one if whole == "1" else several
    if part is None or part == "00":
        return f"{whole} {name}"
    fraction = f"{int(part)} {hundredth if part == '01' else hundredths}"
    return fraction if whole == "0" else f"{whole} {name} and {fraction}"
