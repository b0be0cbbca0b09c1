"""Segments as SRT and WebVTT; used by the audio endpoints."""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Protocol

_BLANK_LINES = re.compile(r"\s*\n\s*")


class Cue(Protocol):
    """A stretch of text with its times; a transcription's segment is one."""

    @property
    def start(self) -> timedelta:
        """From the beginning of the audio."""
        ...

    @property
    def end(self) -> timedelta:
        """From the beginning of the audio."""
        ...

    @property
    def text(self) -> str:
        """What is shown."""
        ...


def srt(cues: Iterable[Cue]) -> str:
    """Gives a SubRip file: numbered from 1, comma before the milliseconds."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_line(cue.text)}\n"
        for number, cue in enumerate(_spoken(cues), 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """Gives a WebVTT file; what would be markup in the text is escaped."""
    blocks = ["WEBVTT\n"]
    for cue in _spoken(cues):
        text = _line(cue.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def _spoken(cues: Iterable[Cue]) -> list[Cue]:
    # A cue without text ends a SubRip block early and is refused by parsers.
    return [cue for cue in cues if cue.text.strip()]


def _line(text: str) -> str:
    # A blank line ends a cue in both formats; "-->" would be read as a time line.
    return _BLANK_LINES.sub("\n", text.strip()).replace("-->", "->")


def _clock(moment: timedelta, point: str) -> str:
    milliseconds = max(0, round(moment.total_seconds() * 1000))
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"
