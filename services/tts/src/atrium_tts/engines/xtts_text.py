"""Which languages XTTS-v2 speaks, what they need, and texts cut to what it takes at once.

The engine calls this before the library's own normalizer, which spells out numbers,
abbreviations and symbols per language.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from atrium_common.errors import InvalidArgument

LIMITS: Mapping[str, int] = {
    "en": 250, "es": 239, "fr": 273, "de": 253, "it": 213, "pt": 203, "pl": 224, "tr": 226,
    "ru": 182, "nl": 251, "cs": 186, "ar": 166, "zh": 82, "hu": 224, "ko": 95, "ja": 71,
    "hi": 150,
}  # fmt: skip
"""Most characters at once, by language; longer ones come out cut short (the library's
`VoiceBpeTokenizer.char_limits`)."""

LANGUAGES = tuple(LIMITS)
"""The 17 languages; the library makes ``"zh"`` what the model calls ``"zh-cn"``."""

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "zh": ("pypinyin",),
    "ja": ("cutlet", "fugashi", "unidic_lite"),
    "ko": ("ko_speech_tools",),
}
"""Modules that a language's normalizer imports beyond what XTTS itself needs."""

_BREAKS = (
    re.compile(r"[.!?…。！？।؟]+[\"'”’)\]]*\s*"),  # noqa: RUF001
    re.compile(r"[,;:،、，；：—–]\s*"),  # noqa: RUF001
    re.compile(r"\s+"),
)
_LONG_NUMBER = re.compile(r"\d{13,}")
_NUMBER = re.compile(r"[0-9][0-9.,]*[0-9]")
_NUMBER_END = re.compile(r"(?<=[0-9])(?=[^\W\d_]|\.(?:\s|$))")
_DIGITS: Mapping[str, Sequence[str]] = {
    "hi": ("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ"),
}


def own_language(language: str) -> str | None:
    """Returns which of `LANGUAGES` a BCP 47 tag means, or ``None`` if the model lacks it.

    Regions do not matter: ``"pt-BR"`` and ``"pt"`` are one to the model.
    """
    primary = language.split("-")[0].lower()
    return primary if primary in LANGUAGES else None


def missing_library(
    language: str,
    *,
    has: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
) -> str | None:
    """Returns the first module that the language needs and that is not installed."""
    return next((name for name in LIBRARIES.get(language, ()) if not has(name)), None)


def check_language(model: str, language: str) -> None:
    """Refuses a language that the model does not speak, or not in this installation.

    Raises:
        InvalidArgument: `field` is ``"language"``.
    """
    own = own_language(language)
    if own is None:
        raise InvalidArgument(
            f"{model} does not speak the language {language!r}.", field="language"
        )
    if (library := missing_library(own)) is not None:
        raise InvalidArgument(
            f"{model} speaks {language!r} only where the Python package {library} is "
            "installed: atrium-tts[xtts-languages].",
            field="language",
            reason="LANGUAGE_NOT_INSTALLED",
        )


def plain(text: str) -> str:
    """Makes a text lower-case, and takes out what the library would misread.

    The library lowers it as well, but a Turkish capital would become two letters. It spells
    numbers out: a code of 40 digits would become a minute of words, so the digits of numbers
    over a trillion are set apart. Brackets are the marks of the model's own tokens.
    """
    text = text.replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i").lower()
    return _LONG_NUMBER.sub(_apart, text.replace("[", "(").replace("]", ")"))


def readings(text: str, language: str) -> Iterator[str]:
    """Gives a text as it is, and then in ways that are ever easier to normalize.

    Some languages' number words lack cases: ordinals in Czech, small fractions in Polish,
    everything in Hindi. The first that the library can read is said.

    Yields:
        The text; with numbers set apart from what follows; with every digit by itself; with
        digits in words, where we have them.
    """
    yield text
    yield (text := _NUMBER_END.sub(" ", text))
    yield (text := _NUMBER.sub(_apart, text))
    if words := _DIGITS.get(language):
        yield re.sub(r"[0-9]", lambda digit: words[int(digit.group())], text)


def _apart(number: re.Match[str]) -> str:
    return " ".join(number.group())


def pieces(text: str, limit: int, *, fits: Callable[[str], bool]) -> Iterator[str]:
    """Cuts a text into what the model takes at once.

    Cuts fall after a sentence, else after a clause, else between words, else anywhere,
    always as late as possible.

    Args:
        text: One utterance.
        limit: Most characters of a piece.
        fits: Tells whether a piece within the limit also fits once its numbers and
            symbols are spelled out; else it is halved.

    Yields:
        Pieces with something to say in them (a letter or a digit), stripped.
    """
    rest = text.strip()
    while rest:
        end = len(rest) if len(rest) <= limit else _cut(rest, limit)
        while end > 1 and not fits(rest[:end].strip()):
            end = _cut(rest, end // 2) if end > 3 else 1
        piece, rest = rest[:end].strip(), rest[end:].strip()
        if any(character.isalnum() for character in piece):
            yield piece


def _cut(text: str, limit: int) -> int:
    """Returns where to cut, from 1 to `limit`; a break in the first quarter is too early."""
    head = text[:limit]
    for pattern in _BREAKS:
        ends = [found.end() for found in pattern.finditer(head)]
        if ends and ends[-1] > limit // 4:
            return ends[-1]
    return max(1, limit)
