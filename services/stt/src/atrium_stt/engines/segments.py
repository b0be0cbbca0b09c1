"""faster-whisper's segments: sorted to their windows, judged, moved to the recording's time.

`decoding.py` calls this; everything here is free of state.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import faster_whisper.transcribe as fw  # type: ignore[import-untyped]

from atrium_stt.domain import Segment, TranscriptionInfo, Word
from atrium_stt.engines.speech import Part, Span
from atrium_stt.recording import SAMPLE_RATE, Recording

# OpenAI's published checks, faster-whisper's defaults too.
WORST_COMPRESSION_RATIO = 2.4
WORST_LOGPROB = -1.0
SILENCE_PROBABILITY = 0.6


def clip(part: Part, first: int) -> dict[str, float]:
    """Says in seconds where a part lies in a batch that begins at sample `first`."""
    # Half a sample more, because faster-whisper cuts off the fraction of seconds x rate.
    start = part.offset - first
    return {
        "start": (start + 0.5) / SAMPLE_RATE,
        "end": (start + part.length + 0.5) / SAMPLE_RATE,
    }


def of_part(decoded: list[fw.Segment], part: Part, first: int) -> list[fw.Segment]:
    """Returns a part's segments, their times counted from the start of the part."""
    start = clip(part, first)["start"]
    seek = int(start * 100)
    length = part.length / SAMPLE_RATE
    mine = [segment for segment in decoded if segment.seek == seek]
    for segment in mine:
        segment.start = max(0.0, segment.start - start)
        segment.end = min(length, segment.end - start)
        segment.seek = 0
        for word in segment.words or ():
            word.start, word.end = max(0.0, word.start - start), min(length, word.end - start)
    return mine


def restored(
    segments: Iterable[fw.Segment], spans: Sequence[Span], *, offset: int
) -> Iterator[fw.Segment]:
    """Moves times from the speech alone to the recording, as faster-whisper does."""
    chunks = [{"start": span.start, "end": span.stop} for span in spans]
    for segment in fw.restore_speech_timestamps(segments, chunks, SAMPLE_RATE):
        segment.seek += offset * 100 // SAMPLE_RATE
        yield segment


def is_silence(segment: fw.Segment) -> bool:
    """Whether Whisper's own rule calls it silence."""
    return bool(
        segment.no_speech_prob > SILENCE_PROBABILITY and segment.avg_logprob < WORST_LOGPROB
    )


def failed(segment: fw.Segment) -> bool:
    """Whether Whisper's own rule says to try again at a higher temperature."""
    return bool(
        segment.compression_ratio > WORST_COMPRESSION_RATIO or segment.avg_logprob < WORST_LOGPROB
    )


def to_info(
    info: fw.TranscriptionInfo, recording: Recording, spans: Sequence[Span]
) -> TranscriptionInfo:
    """Converts; the lengths are those of the recording and of the speech found in it."""
    return TranscriptionInfo(
        language=info.language,
        language_probability=float(info.language_probability),
        duration=recording.duration,
        speech_duration=timedelta(seconds=sum(span.length for span in spans) / SAMPLE_RATE),
    )


def to_segment(segment: fw.Segment, index: int, duration: timedelta) -> Segment:
    """Converts; times stay within the recording, where Whisper's windows end later."""
    return Segment(
        index=index,
        start=_time(segment.start, duration),
        end=_time(segment.end, duration),
        text=segment.text,
        words=tuple(
            Word(
                start=_time(word.start, duration),
                end=_time(word.end, duration),
                text=word.word,
                probability=float(word.probability),
            )
            for word in segment.words or ()
        ),
        average_logprob=float(segment.avg_logprob),
        no_speech_probability=float(segment.no_speech_prob),
        compression_ratio=float(segment.compression_ratio),
        temperature=float(segment.temperature or 0.0),
        tokens=tuple(segment.tokens),
        seek=int(segment.seek),
    )


def _time(seconds: float, duration: timedelta) -> timedelta:
    return min(timedelta(seconds=round(float(seconds), 3)), duration)
