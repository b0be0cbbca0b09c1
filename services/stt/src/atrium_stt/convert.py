"""`atrium.stt.v1` to and from the domain: every field honoured or refused by name.

`servicer.py` calls this; ranges are those of the proto's comments.
"""

import math
import re
from datetime import timedelta

from atrium.stt.v1 import stt_pb2 as pb
from atrium_common.errors import InvalidArgument
from atrium_common.wire import duration_to_proto, usage_to_proto
from atrium_stt.domain import (
    Segment,
    Task,
    TranscriptionEvent,
    TranscriptionInfo,
    TranscriptionJob,
    Word,
)

MAX_HOTWORDS = 64
MAX_HOTWORD_LENGTH = 64
MAX_PROMPT_LENGTH = 16_384
"""Characters; far more than the 224 tokens that can be used, so nothing is lost."""
MAX_BEAM_SIZE = 10
DEFAULT_BEAM_SIZE = 5

_LANGUAGE = re.compile(r"[a-z]{2,3}")
_TASKS: dict[int, Task] = {
    pb.TASK_UNSPECIFIED: Task.TRANSCRIBE,
    pb.TASK_TRANSCRIBE: Task.TRANSCRIBE,
    pb.TASK_TRANSLATE: Task.TRANSLATE,
}


def job_from_proto(config: pb.TranscriptionConfig, *, model: str) -> TranscriptionJob:
    """Reads a config.

    Args:
        config: As the caller sent it.
        model: Catalogue id that its `model` resolved to.

    Raises:
        InvalidArgument: A field is out of its range; `field` is ``"config.<name>"``.
    """
    return TranscriptionJob(
        model=model,
        language=_language(config.language),
        task=_task(config.task),
        prompt=_prompt(config.prompt),
        hotwords=_hotwords(config),
        temperature=_temperature(config),
        beam_size=_beam_size(config),
        word_timestamps=config.word_timestamps,
        voice_activity_detection=(
            config.voice_activity_detection if config.HasField("voice_activity_detection") else True
        ),
        condition_on_previous_text=config.condition_on_previous_text,
    )


def event_to_proto(
    event: TranscriptionEvent, *, queue_time: timedelta
) -> pb.TranscribeAudioResponse:
    """Writes one step of the answer with what was consumed so far."""
    usage = usage_to_proto(event.usage)
    if queue_time:
        usage.queue_time.CopyFrom(duration_to_proto(queue_time))
    if isinstance(event.step, TranscriptionInfo):
        return pb.TranscribeAudioResponse(info=info_to_proto(event.step), usage=usage)
    if isinstance(event.step, Segment):
        return pb.TranscribeAudioResponse(segment=segment_to_proto(event.step), usage=usage)
    return pb.TranscribeAudioResponse(usage=usage)


def info_to_proto(info: TranscriptionInfo) -> pb.TranscriptionInfo:
    """Writes what is known before the first segment."""
    return pb.TranscriptionInfo(
        language=info.language,
        language_probability=info.language_probability,
        duration=duration_to_proto(info.duration),
        speech_duration=duration_to_proto(info.speech_duration),
    )


def segment_to_proto(segment: Segment) -> pb.Segment:
    """Writes a segment."""
    return pb.Segment(
        index=segment.index,
        start=duration_to_proto(segment.start),
        end=duration_to_proto(segment.end),
        text=segment.text,
        words=[_word_to_proto(word) for word in segment.words],
        average_logprob=segment.average_logprob,
        no_speech_probability=segment.no_speech_probability,
        compression_ratio=segment.compression_ratio,
        temperature=segment.temperature,
        tokens=segment.tokens,
        seek=segment.seek,
    )


def _word_to_proto(word: Word) -> pb.Word:
    return pb.Word(
        start=duration_to_proto(word.start),
        end=duration_to_proto(word.end),
        text=word.text,
        probability=word.probability,
    )


def _language(value: str) -> str | None:
    if not value:
        return None
    language = value.lower()
    if not _LANGUAGE.fullmatch(language):
        raise InvalidArgument(
            "language is an ISO 639-1 code like 'en', or 'yue'.", field="config.language"
        )
    return language


def _task(value: int) -> Task:
    task = _TASKS.get(value)
    if task is None:
        raise InvalidArgument(f"There is no task {value}.", field="config.task")
    return task


def _prompt(value: str) -> str:
    if len(value) > MAX_PROMPT_LENGTH:
        raise InvalidArgument(
            f"prompt has at most {MAX_PROMPT_LENGTH} characters.", field="config.prompt"
        )
    return value.strip()


def _hotwords(config: pb.TranscriptionConfig) -> tuple[str, ...]:
    if len(config.hotwords) > MAX_HOTWORDS:
        raise InvalidArgument(
            f"There are at most {MAX_HOTWORDS} hotwords.", field="config.hotwords"
        )
    for number, word in enumerate(config.hotwords):
        if not word.strip() or len(word) > MAX_HOTWORD_LENGTH:
            raise InvalidArgument(
                f"A hotword has 1 to {MAX_HOTWORD_LENGTH} characters.",
                field=f"config.hotwords[{number}]",
            )
    return tuple(word.strip() for word in config.hotwords)


def _temperature(config: pb.TranscriptionConfig) -> float | None:
    if not config.HasField("temperature"):
        return None
    if not 0.0 <= config.temperature <= 1.0 or math.isnan(config.temperature):
        raise InvalidArgument("temperature is from 0 to 1.", field="config.temperature")
    return config.temperature


def _beam_size(config: pb.TranscriptionConfig) -> int:
    if not config.HasField("beam_size"):
        return DEFAULT_BEAM_SIZE
    if not 1 <= config.beam_size <= MAX_BEAM_SIZE:
        raise InvalidArgument(f"beam_size is from 1 to {MAX_BEAM_SIZE}.", field="config.beam_size")
    return config.beam_size
