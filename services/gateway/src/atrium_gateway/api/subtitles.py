"""Cues as SRT and WebVTT; used by the audio endpoints."""

from collections.abc import Iterable
from datetime import timedelta

from atrium_gateway.api.cues import Cue


def srt(cues: Iterable[Cue]) -> str:
    """Gives a SubRip file: numbered from 1, comma before the milliseconds."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_plain(cue.text)}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """Gives a WebVTT file; what would be markup in the text is escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def _plain(text: str) -> str:
    # "-->" would be read as a time line, and SubRip has no escapes.
    return text.replace("-->", "->")


def _clock(moment: timedelta, point: str) -> str:
    milliseconds = max(0, round(moment / timedelta(milliseconds=1)))
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"
