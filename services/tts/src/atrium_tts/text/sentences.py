"""Where sentences end; `utterances.py` calls it for each run.

The rules for some 300 languages are sentencex's (Wikimedia, MIT), which knows
abbreviations, initials, numbers, addresses, quotes and the stops of other scripts. Here
stand only what it lacks: abbreviations that it takes for an end, the sentences inside a
long quotation, and windows, because its time grows with the square of the text.
"""

# ruff: noqa: RUF001 - marks of many scripts stand here on purpose

import re
from collections.abc import Iterator, Mapping

import sentencex  # type: ignore[import-untyped]

_WINDOW = 600
"""Code points that are looked at at once; several sentences of any ordinary text."""

_LONG = 80
"""A sentence of more code points is searched for sentences inside quotes and brackets."""

_QUOTES = str.maketrans(dict.fromkeys('"“”„«»‹›()[]「」『』《》', " "))
_CLOSING = re.compile(r"""["'“”’«»›)\]」』》]*(?:\s+[»›])?\s*""")
"""What follows a stop and still belongs to its sentence."""

_ABBREVIATIONS: Mapping[str, frozenset[str]] = {
    "": frozenset({"dr", "prof", "ca", "vs", "cf", "vol", "art", "tel", "fig"}),
    "en": frozenset({"mr", "mrs", "ms", "approx", "dept", "est", "pp", "eq", "sec", "messrs"}),
    "de": frozenset({"nr", "bzw", "evtl", "ggf", "inkl", "zzgl", "hr", "fr", "frl", "abb", "str"}),
    "fr": frozenset({"m", "mm", "mme", "mmes", "mlle", "mlles", "p", "pp", "av", "env"}),
    "es": frozenset({"sr", "sra", "srta", "dra", "ud", "uds", "pág", "págs", "núm", "p", "av"}),
    "it": frozenset({"sig", "sigg", "dott", "pag", "pagg", "avv", "ing", "arch", "p", "num"}),
    "pt": frozenset({"sr", "sra", "srta", "dra", "pág", "págs", "p", "núm", "av", "exa", "exmo"}),
}
"""Abbreviations after which a sentence goes on, whatever follows; "" is every language."""

_TAIL = re.compile(r"([^\W\d_]+)\.\s+\Z")


def sentence_ends(text: str, language: str) -> list[int]:
    """Finds where sentences end, blanks behind them included.

    Args:
        text: Some lines of text, without paragraphs.
        language: BCP 47; ``""`` or an unknown one is taken for English.

    Returns:
        Ends in rising order, the last being the text's. Empty for an empty text.
    """
    tag = language.split("-")[0].lower() or "en"
    ends: list[int] = []
    begin = 0
    for end in _raw_ends(text.replace("\n", " "), tag):
        if end < len(text) and _goes_on(text[max(begin, end - 24) : end], tag):
            continue
        if end - begin > _LONG:
            ends += _inner_ends(text, begin, end, tag)
        ends.append(end)
        begin = end
    return ends


def _raw_ends(text: str, tag: str) -> Iterator[int]:
    begin = last = 0
    while begin < len(text):
        window = text[begin : begin + _WINDOW]
        found = [begin + one["end_index"] for one in sentencex.get_sentence_boundaries(tag, window)]
        if begin + len(window) < len(text):
            # The last one may go on behind the window: it begins the next.
            found = found[:-1]
        for last in found:
            yield last
        if found:
            begin = last
        else:
            blank = window.rfind(" ")
            begin += blank + 1 if blank > 0 else len(window)
    if last < len(text):
        yield len(text)


def _goes_on(tail: str, tag: str) -> bool:
    match = _TAIL.search(tail)
    if match is None:
        return False
    word = match[1].lower()
    return word in _ABBREVIATIONS[""] or word in _ABBREVIATIONS.get(tag, ())


def _inner_ends(text: str, begin: int, end: int, tag: str) -> Iterator[int]:
    """Finds the sentences inside quotations and brackets."""
    sentence = text[begin:end]
    bare = sentence.translate(_QUOTES)
    if bare == sentence:
        return
    for found in _raw_ends(bare, tag):
        stop = len(bare[:found].rstrip())
        closing = _CLOSING.match(sentence, stop)
        place = closing.end() if closing else found
        if 0 < place < len(sentence) and not _goes_on(sentence[max(0, place - 24) : place], tag):
            yield begin + place
