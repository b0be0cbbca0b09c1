"""Scripts (ISO 15924): of a text by its letters, of a language, and by Tesseract's names."""

import unicodedata
from collections import Counter

# First word of a letter's Unicode name, and its script.
_LETTERS = {
    "LATIN": "Latn",
    "GREEK": "Grek",
    "CYRILLIC": "Cyrl",
    "ARMENIAN": "Armn",
    "HEBREW": "Hebr",
    "ARABIC": "Arab",
    "SYRIAC": "Syrc",
    "THAANA": "Thaa",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "GEORGIAN": "Geor",
    "ETHIOPIC": "Ethi",
    "CHEROKEE": "Cher",
    "KHMER": "Khmr",
    "HANGUL": "Kore",
    "HIRAGANA": "Jpan",
    "KATAKANA": "Jpan",
    "CJK": "Hani",
}
_TESSERACT = {
    "Fraktur": "Latf",
    "Han": "Hani",
    "Hangul": "Kore",
    "Hiragana": "Jpan",
    "Katakana": "Jpan",
    "Japanese": "Jpan",
    "Korean": "Kore",
}
_LANGUAGES = {
    "Grek": "ell grc",
    "Cyrl": "bel bul kaz kir mkd mon rus srp tat tgk ukr",
    "Armn": "hye",
    "Hebr": "heb yid",
    "Arab": "ara fas pus snd uig urd",
    "Syrc": "syr",
    "Thaa": "div",
    "Deva": "hin mar nep san",
    "Beng": "asm ben",
    "Guru": "pan",
    "Gujr": "guj",
    "Orya": "ori",
    "Taml": "tam",
    "Telu": "tel",
    "Knda": "kan",
    "Mlym": "mal",
    "Sinh": "sin",
    "Thai": "tha",
    "Laoo": "lao",
    "Tibt": "bod dzo",
    "Mymr": "mya",
    "Geor": "kat",
    "Ethi": "amh tir",
    "Cher": "chr",
    "Khmr": "khm",
    "Kore": "kor",
    "Jpan": "jpn",
    "Hani": "zho",
}
_SCRIPT_OF = {language: script for script, all_ in _LANGUAGES.items() for language in all_.split()}

_UNSPACED = frozenset({"Hani", "Jpan", "Thai", "Laoo", "Mymr", "Khmr", "Tibt"})
_WIDE_SIGNS = range(0x3000, 0x3040), range(0xFF00, 0xFF66)
"""Signs that stand among unspaced letters: CJK punctuation, and full-width forms."""


def iso_script(name: str) -> str:
    """Returns the script that Tesseract's orientation data call `name`; ``""`` if unknown."""
    return _TESSERACT.get(name) or _LETTERS.get(name.upper(), "")


def script_of_language(language: str) -> str:
    """Returns the script that a language (ISO 639-3) is mostly written in; Latin if unknown."""
    return _SCRIPT_OF.get(language, "Latn")


def script_of_text(text: str) -> str:
    """Returns the script of most letters; ``""`` if there are none.

    Han letters between kana are Japanese, and between hangul Korean.
    """
    found = Counter(script for letter in text if (script := _script_of_letter(letter)))
    for mixed in ("Jpan", "Kore"):
        if found[mixed]:
            found[mixed] += found.pop("Hani", 0)
    return found.most_common(1)[0][0] if found else ""


def join_words(words: list[str]) -> str:
    """Joins the words of a line by spaces, but where the script has none between them."""
    joined = ""
    for word in words:
        if joined and not (_is_unspaced(joined[-1]) and _is_unspaced(word[0])):
            joined += " "
        joined += word
    return joined


def _script_of_letter(letter: str) -> str:
    if not letter.isalpha():
        return ""
    return _LETTERS.get(unicodedata.name(letter, "").partition(" ")[0], "")


def _is_unspaced(letter: str) -> bool:
    code = ord(letter)
    return any(code in signs for signs in _WIDE_SIGNS) or _script_of_letter(letter) in _UNSPACED
