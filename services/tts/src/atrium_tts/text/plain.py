"""Reads plain text into runs, one per paragraph or list item; `plan.py` calls it."""

# ruff: noqa: RUF001 - marks of many scripts stand here on purpose

import re

from atrium_common.errors import InvalidArgument
from atrium_tts.text.characters import sayable
from atrium_tts.text.run import Run

_LIST_ITEM = re.compile(r"[-*+•·▪◦‣–—]\s|\(?(?:\d{1,3}|[a-zA-Z])[.)]\s")
_SHORT_LINE = 40
"""Code points. A wrapped line is longer; a shorter one is a heading, an address or verse."""

_STOPS = tuple(".!?…。！？।॥؟۔:;,，、；：-–—")


def read_plain(text: str, *, field: str = "text") -> list[Run]:
    """Makes runs of plain text; blank ones are left out.

    Raises:
        InvalidArgument: There is a lone surrogate, which stands for no character.
    """
    return split_lines(read_characters(text, field=field))


def read_characters(text: str, *, field: str, start: int = 0) -> Run:
    """Makes one run of what can be said in a text, not yet cut at lines.

    Args:
        text: What the caller wrote, character by character.
        field: For the error.
        start: Where it stands in the input.
    """
    kept: list[str] = []
    places: list[int] = []
    for index, character in enumerate(text, start):
        if "\ud800" <= character <= "\udfff":
            raise InvalidArgument(
                f"The text holds a lone surrogate at character {index}.",
                reason="INVALID_CHARACTER",
                field=field,
            )
        heard = sayable(character)
        if character == "\n" and text[index - start - 1 : index - start] == "\r":
            continue  # one line end, not a blank line
        if heard:
            kept.append(heard)
            places.append(index)
    run = Run()
    run.add("".join(kept), places, [place + 1 for place in places])
    return run


def split_lines(run: Run) -> list[Run]:
    """Cuts a run where a line end is one of speech too: paragraphs, lists and headings."""
    lines = re.split(r"([\n\f])", run.text)
    runs: list[Run] = []
    begin = at = 0
    line = ""
    for index in range(0, len(lines), 2):
        following = lines[index]
        if index and _parts(line, lines[index - 1], following):
            runs.append(slice_run(run, begin, at))
            begin = at
        line = following
        at += len(following) + (len(lines[index + 1]) if index + 1 < len(lines) else 0)
    runs.append(slice_run(run, begin, len(run.text)))
    return [one for one in runs if one.text.strip()]


def _parts(line: str, end: str, following: str) -> bool:
    line, following = line.strip(), following.strip() + " "
    if end == "\f" or not line or following == " ":
        return True
    if _LIST_ITEM.match(following):
        return True
    short = len(line) < _SHORT_LINE and not line.endswith(_STOPS)
    return (short and not following[0].islower()) or bool(
        _LIST_ITEM.match(line + " ") and not following[0].islower()
    )


def slice_run(run: Run, begin: int, end: int) -> Run:
    """Copies a part of a run; language and rate stay, pauses do not."""
    return Run(
        language=run.language,
        rate=run.rate,
        text=run.text[begin:end],
        starts=run.starts[begin:end],
        ends=run.ends[begin:end],
        counts=run.counts[begin:end],
        solid=run.solid[begin:end],
    )
