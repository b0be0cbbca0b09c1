"""Cuts runs into utterances of a good length; `plan.py` calls `utterances_of`."""

# ruff: noqa: RUF001 - marks of many scripts stand here on purpose

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from atrium_tts.domain import Utterance
from atrium_tts.text.characters import speakable
from atrium_tts.text.run import Run
from atrium_tts.text.sentences import sentence_ends

_FIRST_LONGEST = 150
"""The first utterance is cut at a clause mark if it has more code points, so that audio
leaves early."""

_FRAGMENT = 12
"""Fewer letters and digits than this are said together with a neighbour."""

_FIRST_JOINED = 60
"""Code points that the first utterance may have after a join."""

_CLAUSE = re.compile(r"""[,;:…!?،؛]["'”’»›)\]]*\s+|\s[–—-]\s+|—|[，、；：。！？]["'”’」』》）]*""")
_BLANK = re.compile(r"\s+")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def utterances_of(runs: Sequence[Run], *, language: str, longest: int) -> tuple[Utterance, ...]:
    """Makes the utterances of some runs, in order.

    Args:
        runs: What was read. Pauses of a run that says nothing pass to its neighbours.
        language: The job's, for runs that have none.
        longest: Code points that an utterance may have.

    Returns:
        None if there is nothing to say.
    """
    made: list[Utterance] = []
    waiting = timedelta()
    for run in runs:
        spoken = [
            utterance_of(run, begin, end)
            for begin, end in _ranges(run, language=language, longest=longest, first=not made)
        ]
        if not spoken:
            pause = run.pause_before + run.pause_after
            if made:
                made[-1] = replace(made[-1], pause_after=made[-1].pause_after + pause)
            else:
                waiting += pause
            continue
        spoken[0] = replace(spoken[0], pause_before=waiting + run.pause_before)
        spoken[-1] = replace(spoken[-1], pause_after=run.pause_after)
        waiting = timedelta()
        made += spoken
    return tuple(made)


def utterance_of(run: Run, begin: int, end: int) -> Utterance:
    """Makes one utterance of a part of a run that is not blank."""
    piece = run.text[begin:end]
    first = begin + len(piece) - len(piece.lstrip())
    last = begin + len(piece.rstrip())
    return Utterance(
        text=" ".join(piece.split()),
        characters=sum(run.counts[begin:end]),
        start=run.starts[first],
        end=run.ends[last - 1],
        language=run.language,
        rate=run.rate,
    )


def _ranges(run: Run, *, language: str, longest: int, first: bool) -> list[tuple[int, int]]:
    """Finds the parts of a run that are said as one; each has something to say."""
    parts: list[tuple[int, int]] = []
    begin = 0
    for end in sentence_ends(run.text, run.language or language):
        if end < len(run.text) and run.solid[end]:
            continue
        parts += _cut(run, begin, end, longest=longest, first=first and not parts)
        begin = end
    return _join(run, parts, longest=longest, first=first)


def _cut(run: Run, begin: int, end: int, *, longest: int, first: bool) -> Iterator[tuple[int, int]]:
    """Cuts a sentence that is too long: at clause marks, else at blanks, else hard."""
    if first and end - begin > min(longest, _FIRST_LONGEST):
        place = _last_match(_CLAUSE, run, begin, begin + min(longest, _FIRST_LONGEST))
        if place:
            yield begin, place
            begin = place
    while end - begin > longest:
        limit = begin + longest
        place = (
            _last_match(_CLAUSE, run, begin, limit)
            or _last_match(_BLANK, run, begin, limit)
            or _hard(run, begin, limit)
        )
        yield begin, place
        begin = place
    yield begin, end


def _last_match(pattern: re.Pattern[str], run: Run, begin: int, limit: int) -> int:
    """Returns the last good place to cut in the later two thirds (blanks: anywhere), or 0."""
    earliest = begin if pattern is _BLANK else begin + (limit - begin) // 3
    text, place = run.text, 0
    for match in pattern.finditer(text, begin, limit + 1):
        at = min(match.end(), limit)
        between_digits = at < len(text) and text[match.start() - 1].isdigit() and text[at].isdigit()
        if earliest < at and not run.solid[at] and not between_digits and text[begin:at].strip():
            place = at
    return place


def _hard(run: Run, begin: int, limit: int) -> int:
    """Cuts a run of characters without blanks, not inside a grapheme or a stand-in."""
    place = limit
    while place > begin + 1 and (
        run.solid[place]
        or unicodedata.combining(run.text[place])
        or run.text[place - 1] == "\u200d"
    ):
        place -= 1
    return place if place > begin + 1 else limit


def _join(
    run: Run, parts: Sequence[tuple[int, int]], *, longest: int, first: bool
) -> list[tuple[int, int]]:
    """Joins fragments with the part behind them, or else before, so that prosody holds."""
    joined: list[tuple[int, int]] = []
    for begin, end in parts:
        if joined:
            before = joined[-1]
            opening = first and len(joined) == 1
            room = min(_FIRST_JOINED, longest) if opening else longest
            short = _is_fragment(run.text, before) or (
                _is_fragment(run.text, (begin, end)) and not opening
            )
            silent = not speakable(run.text[begin:end]) or not speakable(run.text[slice(*before)])
            if (short and end - before[0] <= room) or (silent and end - before[0] <= longest):
                joined[-1] = (before[0], end)
                continue
        joined.append((begin, end))
    return [part for part in joined if speakable(run.text[slice(*part)])]


def _is_fragment(text: str, part: tuple[int, int]) -> bool:
    begin, end = part
    if end - begin > 4 * _FRAGMENT:
        return False
    piece = text[begin:end]
    heard = sum(map(str.isalnum, piece))
    # A character of Chinese, Japanese or Korean is about a syllable or two.
    return heard + 2 * len(_WIDE.findall(piece)) < _FRAGMENT
