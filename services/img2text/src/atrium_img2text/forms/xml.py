"""Escaping for the forms that are XML. hOCR and ALTO use it."""

import re
from collections.abc import Sequence

from atrium_img2text.forms.words import clean

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
# A parser would make a space of these in an attribute, and a newline of the last in a text.
_ESCAPES |= {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_ESCAPED = re.compile("[{}]".format("".join(_ESCAPES)))
_LANGUAGE = re.compile("[a-z]{2,3}")


def escape(text: str) -> str:
    """Makes text fit between tags and between double quotes."""
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], clean(text))


def decimal(value: float) -> str:
    """Writes a number with at most four places, and none that says nothing."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def language_attribute(name: str, languages: Sequence[str]) -> str:
    """Returns an attribute, with a space before it, of the likeliest language; or nothing."""
    if languages and _LANGUAGE.fullmatch(languages[0]):
        return f' {name}="{languages[0]}"'
    return ""
