"""`atrium.stt.v1` to and from the domain: every field honoured or refused by name.

`servicer.py` calls this; ranges are those of the proto's comments.
"""

import math
import re
from datetime import timedelta

from atrium.stt.v1 import stt_pb2 as pb
from atrium_common.errors import InvalidArgument
from atrium_common.wire import duration_from_proto, duration_to_proto, usage_to_proto
from atrium_stt.domain import (
    FinalSegment,
    LiveEvent,
    LiveJob,
    LiveStep,
    PartialSegment,
    Segment,
    SpeechStarted,
    SpeechStopped,
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
SAMPLE_RATES = range(8_000, 48_001)
SHORTEST_END_SILENCE = timedelta(milliseconds=100)
LONGEST_END_SILENCE = timedelta(seconds=5)
DEFAULT_END_SILENCE = timedelta(milliseconds=500)

_LANGUAGE = re.compile(r"[a-z]{2,3}")
_TASKS: dict[int, Task] = {
    pb.TASK_UNSPECIFIED: Task.TRANSCRIBE,
    pb.TASK_TRANSCRIBE: Task.TRANSCRIBE,
    pb.TASK_TRANSLATE: Task.TRANSLATE,
}


def job_from_proto(
    config: pb.TranscriptionConfig, *, model: str, path: str = "config"
) -> TranscriptionJob:
    """Reads a config.

    Args:
        config: As the caller sent it.
        model: Catalogue id that its `model` resolved to.
        path: Where the config stands in the request, for errors.

    Raises:
        InvalidArgument: A field is out of its range; `field` is ``"<path>.<name>"``.
    """
    return TranscriptionJob(
        model=model,
        language=_language(config.language, path),
        task=_task(config.task, path),
        prompt=_prompt(config.prompt, path),
        hotwords=_hotwords(config, path),
        temperature=_temperature(config, path),
        beam_size=_beam_size(config, path),
        word_timestamps=config.word_timestamps,
        voice_activity_detection=(
            config.voice_activity_detection if config.HasField("voice_activity_detection") else True
        ),
        condition_on_previous_text=config.condition_on_previous_text,
    )


def live_job_from_proto(config: pb.LiveTranscriptionConfig, *, model: str) -> LiveJob:
    """Reads the config of live audio.

    Raises:
        InvalidArgument: A field is missing, out of its range, or means nothing while
            audio is live; `field` is ``"config.<path>"``.
    """
    job = job_from_proto(config.transcription, model=model, path="config.transcription")
    if not job.voice_activity_detection:
        raise InvalidArgument(
            "Live audio is cut by voice activity detection; it can't be switched off.",
            field="config.transcription.voice_activity_detection",
        )
    return LiveJob(
        transcription=job,
        sample_rate=_sample_rate(config),
        end_silence=_end_silence(config),
        partial_results=config.partial_results,
    )


def chunk_from_proto(request: pb.TranscribeLiveAudioRequest, *, sample_rate: int) -> bytes:
    """Reads a chunk of live audio.

    Raises:
        InvalidArgument: It is no chunk, or has more than a second.
    """
    match request.WhichOneof("step"):
        case "chunk":
            data = request.chunk.data
        case "config":
            raise InvalidArgument("The config comes once.", field="config")
        case _:
            raise InvalidArgument("A message holds a chunk.", field="step")
    if len(data) > 2 * sample_rate + 1:  # a sample cut by the last message's end is one more
        raise InvalidArgument("A chunk has at most a second of audio.", field="chunk")
    return data


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


def live_event_to_proto(event: LiveEvent) -> pb.TranscribeLiveAudioResponse:
    """Writes one step of a live answer with what was consumed so far."""
    response = _live_step(event.step)
    response.usage.CopyFrom(usage_to_proto(event.usage))
    return response


def _live_step(step: LiveStep | None) -> pb.TranscribeLiveAudioResponse:
    if step is None:
        return pb.TranscribeLiveAudioResponse()
    if isinstance(step, PartialSegment):
        return pb.TranscribeLiveAudioResponse(
            partial=segment_to_proto(step.segment), tentative_text=step.tentative
        )
    if isinstance(step, FinalSegment):
        return pb.TranscribeLiveAudioResponse(
            final=segment_to_proto(step.segment),
            language=step.language,
            language_probability=step.language_probability,
        )
    if isinstance(step, SpeechStarted):
        started = pb.LiveSpeechStarted(index=step.index, start=duration_to_proto(step.start))
        return pb.TranscribeLiveAudioResponse(speech_started=started)
    if isinstance(step, SpeechStopped):
        stopped = pb.LiveSpeechStopped(index=step.index, end=duration_to_proto(step.end))
        return pb.TranscribeLiveAudioResponse(speech_stopped=stopped)
    dismissed = pb.LiveSpeechDismissed(index=step.index)
    return pb.TranscribeLiveAudioResponse(speech_dismissed=dismissed)


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


def _language(value: str, path: str) -> str | None:
    if not value:
        return None
    language = value.lower()
    if not _LANGUAGE.fullmatch(language):
        raise InvalidArgument(
            "language is an ISO 639-1 code like 'en', or 'yue'.", field=f"{path}.language"
        )
    return language


def _task(value: int, path: str) -> Task:
    task = _TASKS.get(value)
    if task is None:
        raise InvalidArgument(f"There is no task {value}.", field=f"{path}.task")
    return task


def _prompt(value: str, path: str) -> str:
    if len(value) > MAX_PROMPT_LENGTH:
        raise InvalidArgument(
            f"prompt has at most {MAX_PROMPT_LENGTH} characters.", field=f"{path}.prompt"
        )
    return value.strip()


def _hotwords(config: pb.TranscriptionConfig, path: str) -> tuple[str, ...]:
    if len(config.hotwords) > MAX_HOTWORDS:
        raise InvalidArgument(
            f"There are at most {MAX_HOTWORDS} hotwords.", field=f"{path}.hotwords"
        )
    for number, word in enumerate(config.hotwords):
        if not word.strip() or len(word) > MAX_HOTWORD_LENGTH:
            raise InvalidArgument(
                f"A hotword has 1 to {MAX_HOTWORD_LENGTH} characters.",
                field=f"{path}.hotwords[{number}]",
            )
    return tuple(word.strip() for word in config.hotwords)


def _temperature(config: pb.TranscriptionConfig, path: str) -> float | None:
    if not config.HasField("temperature"):
        return None
    if not 0.0 <= config.temperature <= 1.0 or math.isnan(config.temperature):
        raise InvalidArgument("temperature is from 0 to 1.", field=f"{path}.temperature")
    return config.temperature


def _beam_size(config: pb.TranscriptionConfig, path: str) -> int:
    if not config.HasField("beam_size"):
        return DEFAULT_BEAM_SIZE
    if not 1 <= config.beam_size <= MAX_BEAM_SIZE:
        raise InvalidArgument(f"beam_size is from 1 to {MAX_BEAM_SIZE}.", field=f"{path}.beam_size")
    return config.beam_size


def _sample_rate(config: pb.LiveTranscriptionConfig) -> int:
    if config.format.sample_rate not in SAMPLE_RATES:
        raise InvalidArgument(
            f"sample_rate is from {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}.",
            field="config.format.sample_rate",
        )
    return config.format.sample_rate


def _end_silence(config: pb.LiveTranscriptionConfig) -> timedelta:
    if not config.HasField("end_silence"):
        return DEFAULT_END_SILENCE
    try:
        silence = duration_from_proto(config.end_silence)
    except OverflowError:
        silence = timedelta.max
    if not SHORTEST_END_SILENCE <= silence <= LONGEST_END_SILENCE:
        raise InvalidArgument(
            "end_silence is from 100 ms to 5 s.",
            field="config.end_silence",
        )
    return silence
