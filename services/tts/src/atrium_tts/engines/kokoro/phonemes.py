"""From written text to what Kokoro reads: its own phoneme symbols, and their numbers.

`engine.py` calls it. espeak says how words sound; punctuation, which the model breathes
by, is kept beside it. Symbols and replacements follow misaki, the phonemizer that Kokoro
was trained with (https://github.com/hexgrad/misaki, `espeak.py`).
"""

# ruff: noqa: RUF001  # phonemes and signs of other scripts resemble letters

import re
import unicodedata
from collections.abc import Iterator, Mapping

from atrium_tts.engines.kokoro.espeak import TIE, Espeak
from atrium_tts.engines.kokoro.money import spoken_money

MOST = 510
"""Symbols that the model reads at once."""

_RUNS: Mapping[int, str] = {
    1: ";:,.!?",
    9: '—…"()“” \u0303ʣʥʦʨᵝꭧAI',
    31: "O",
    33: "Q",
    35: "ST",
    39: "W",
    41: "Yᵊabcdef",
    50: "hijklmnopqrstuvwxyzɑɐɒæ",
    75: "βɔɕç",
    80: "ɖðʤə",
    85: "ɚɛɜ",
    90: "ɟ",
    92: "ɡ",
    99: "ɥ",
    101: "ɨɪʝ",
    110: "ɯɰŋɳɲɴø",
    118: "ɸθœ",
    123: "ɹ",
    125: "ɾɻ",
    128: "ʁɽʂʃʈʧ",
    135: "ʊʋ",
    138: "ʌɣɤ",
    142: "χʎ",
    147: "ʒʔ",
    156: "ˈˌː",
    162: "ʰ",
    164: "ʲ",
    169: "↓",
    171: "→↗↘",
    177: "ᵻ",
}
"""The model's vocabulary: number of the first symbol -> symbols that follow each other."""

VOCABULARY: Mapping[str, int] = {
    symbol: first + offset for first, run in _RUNS.items() for offset, symbol in enumerate(run)
}

ESPEAK_VOICES: Mapping[str, str] = {
    "en-us": "en-us",
    "en-gb": "en",
    "es": "es",
    "fr-fr": "fr",
    "hi": "hi",
    "it": "it",
    "pt-br": "pt-br",
}
"""Language (BCP 47) -> espeak's name of it."""

_SIGNS = str.maketrans(
    {
        "。": ". ",
        "．": ".",
        "，": ", ",
        "、": ", ",
        "！": "! ",
        "？": "? ",
        "：": ": ",
        "；": "; ",
        "।": ".",
        "’": "'",
        "‘": "'",
        "«": "“",
        "»": "”",
        "„": "“",
        "[": "(",
        "]": ")",
        "{": "(",
        "}": ")",
        "¡": " ",
        "¿": " ",
    }
)
_DASH = re.compile(r"\s[-–]+\s|--+")
_DOTS = re.compile(r"\.{2,}")
# A comma in 10,000, a colon in 9:30 and a point in 3.5 belong to their number.
_MARKS = re.compile(r'\s*(?:[—…!?“”"()]|[;:,.](?=[\s—…!?“”"();:,.]|$))+\s*')
_ABBREVIATION = re.compile(
    r"(?:(?:^|\W)(?:[^\W\d_a-z]\w{0,3}|vs|etc|approx|cf|ca|al|pp?|vol|no)|\w\.\w+)$"
)

_DIPHTHONGS = (("a^ɪ", "I"), ("a^ʊ", "W"), ("e^ɪ", "A"), ("ɔ^ɪ", "Y"), ("o^ʊ", "O"), ("ə^ʊ", "Q"))
_AFFRICATES = (("d^ʒ", "ʤ"), ("t^ʃ", "ʧ"))
_ENGLISH = (
    ("e^ə", "ɛː"),
    ("ʔˌn\u0329", "tᵊn"),
    ("ʔn\u0329", "tᵊn"),
    ("ʔn", "tᵊn"),
    *_DIPHTHONGS,
    *_AFFRICATES,
    ("ə^l", "ᵊl"),
    ("ʲo", "jo"),
    ("ʲə", "jə"),
    ("ʲ", ""),
    ("ʔ", "t"),
    ("e", "A"),
    ("ɚ", "əɹ"),
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɐ", "ə"),
    ("ɬ", "l"),
    ("\u0303", ""),
    (TIE, ""),
)
_BRITISH = (("iə", "ɪə"),)
_AMERICAN = (("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("ɾ", "T"))
_OTHERS = (
    *_DIPHTHONGS,
    *_AFFRICATES,
    ("d^z", "ʣ"),
    ("t^s", "ʦ"),
    ("s^s", "S"),
    (TIE, ""),
    ("-", ""),
)
_SYLLABIC = re.compile(r"(\S)\u0329")

_SOUNDLESS = frozenset(';:,.!?—…"()“” ')
_CUTS = (re.compile(r"[.!?…]\S*\s"), re.compile(r"[,;:—]\S*\s"), re.compile(r"\s"))
"""Where a text that is too long is cut, the best place first: behind a match."""


def phonemes(text: str, language: str, espeak: Espeak) -> str:
    """Returns how `text` sounds, in symbols of `VOCABULARY`; ``""`` if nothing sounds.

    Args:
        text: One sentence or more.
        language: A key of `ESPEAK_VOICES`.
        espeak: Knows the words.
    """
    voice = ESPEAK_VOICES[language]
    if language.startswith("en-"):
        text = spoken_money(text)
    said: list[str] = []
    for words, marks in _cut(_clean(text)):
        if words:
            said.append(_in_kokoros_terms(espeak.phonemes(words, voice), language))
        said.append(marks)
    symbols = "".join(symbol for symbol in "".join(said) if symbol in VOCABULARY).strip()
    return "" if _SOUNDLESS.issuperset(symbols) else symbols


def numbers(symbols: str) -> list[int]:
    """Returns what the model reads for `symbols`, of which it knows each."""
    return [VOCABULARY[symbol] for symbol in symbols]


def pieces(symbols: str, most: int = MOST) -> list[str]:
    """Cuts what is too long near its middle, behind a sentence, a clause or a word."""
    symbols = symbols.strip()
    if len(symbols) <= most:
        return [symbols] if symbols else []
    middle = len(symbols) // 2
    place = middle
    for cut in _CUTS:
        ends = [match.end() for match in cut.finditer(symbols)]
        near = [end for end in ends if middle // 2 <= end <= middle * 3 // 2]
        if near:
            place = min(near, key=lambda end: abs(end - middle))
            break
    return pieces(symbols[:place], most) + pieces(symbols[place:], most)


def _clean(text: str) -> str:
    """Leaves one form of each sign, and none that is not for reading."""
    text = "".join(" " if unicodedata.category(sign)[0] == "C" else sign for sign in text)
    text = unicodedata.normalize("NFC", text).translate(_SIGNS)
    text = _DOTS.sub("…", _DASH.sub("—", text))
    return " ".join(text.split())


def _cut(text: str) -> Iterator[tuple[str, str]]:
    """Yields words and the marks behind them."""
    start = 0
    for mark in _MARKS.finditer(text):
        words = text[start : mark.start()]
        inside = mark.end() < len(text)
        if inside and mark[0].strip() == "." and _ABBREVIATION.search(words):
            continue
        yield words, mark[0]
        start = mark.end()
    yield text[start:], ""


def _in_kokoros_terms(ipa: str, language: str) -> str:
    """Replaces what Kokoro writes in another way than espeak."""
    if not language.startswith("en-"):
        return _replaced(ipa, _OTHERS)
    ipa = _SYLLABIC.sub(r"ᵊ\1", _replaced(ipa, _ENGLISH))
    return _replaced(ipa, _AMERICAN if language == "en-us" else _BRITISH)


def _replaced(ipa: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        ipa = ipa.replace(old, new)
    return ipa
