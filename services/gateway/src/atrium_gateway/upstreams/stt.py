"""Client of the stt service: sends audio in pieces, gives segments as they come."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, BinaryIO

import grpc.aio

from atrium.common.v1 import media_pb2
from atrium.stt.v1 import stt_pb2, stt_pb2_grpc
from atrium_common.wire import duration_from_proto, duration_to_proto
from atrium_gateway.upstreams.calls import Credentials, StreamedCall
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.speech import (
    Heard,
    Info,
    LiveSpeech,
    LiveStep,
    Recording,
    Segment,
    SpeechDismissed,
    SpeechStarted,
    SpeechStopped,
    Step,
    Word,
)
from atrium_gateway.upstreams.uploads import pieces

SERVICE = "atrium.stt.v1.TranscriptionService"
TRANSCRIBE = f"/{SERVICE}/TranscribeAudio"
TRANSCRIBE_LIVE = f"/{SERVICE}/TranscribeLiveAudio"

TranscriptionCall = StreamedCall[stt_pb2.TranscribeAudioResponse, Step]


class SttUpstream:
    """The stt service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = stt_pb2_grpc.TranscriptionServiceStub(channel)
        self._credentials = credentials

    def transcribe(self, job: Recording, audio: BinaryIO, caller: Caller) -> TranscriptionCall:
        """Starts a transcription; `audio` is read to its end, from where it stands."""
        call = self._stub.TranscribeAudio(
            _upload(job, audio),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, _step)

    def live(self, job: LiveSpeech, caller: Caller) -> "LiveSttCall":
        """Starts a turn of live audio."""
        # No iterator: the messages are written one by one.
        call = self._stub.TranscribeLiveAudio(
            None,
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return LiveSttCall(call, job)


class LiveSttCall(StreamedCall[stt_pb2.TranscribeLiveAudioResponse, LiveStep]):
    """One turn of live audio; meets `upstreams.live.LiveCall`."""

    def __init__(self, call: Any, job: LiveSpeech) -> None:
        """Args: call: A `grpc.aio` call with `read` and `write`; job: What to do."""
        super().__init__(call, _live_step)
        self._config: LiveSpeech | None = job
        self._writing: asyncio.Future[None] | None = None

    async def send(self, data: bytes) -> None:
        """Sends at most a second of audio; waits while the service is behind."""
        await self._configure()
        chunk = media_pb2.MediaChunk(data=data)
        await self._through(self._call.write(stt_pb2.TranscribeLiveAudioRequest(chunk=chunk)))

    async def finish(self) -> None:
        """Half-closes the call."""
        await self._configure()
        await self._through(self._call.done_writing())

    async def _configure(self) -> None:
        job, self._config = self._config, None
        if job is not None:
            config = stt_pb2.TranscribeLiveAudioRequest(config=_live_config(job))
            await self._through(self._call.write(config))

    async def _through(self, write: Coroutine[Any, Any, None]) -> None:
        """Sees a write through, after the one before, even if the writer is cancelled.

        A write that is cancelled would take the call with it, and what the service still
        has to say.
        """

        async def done(before: "asyncio.Future[None] | None") -> None:
            if before is not None:
                await before
            # The call may have ended; that is told to the one who reads.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
                await write

        self._writing = asyncio.ensure_future(done(self._writing))
        await asyncio.shield(self._writing)


async def _upload(job: Recording, audio: BinaryIO) -> AsyncIterator[stt_pb2.TranscribeAudioRequest]:
    yield stt_pb2.TranscribeAudioRequest(config=_config(job))
    async for piece in pieces(audio):
        if isinstance(piece, media_pb2.MediaChunk):
            yield stt_pb2.TranscribeAudioRequest(chunk=piece)
        else:
            yield stt_pb2.TranscribeAudioRequest(end=piece)


def _config(job: Recording) -> stt_pb2.TranscriptionConfig:
    return stt_pb2.TranscriptionConfig(
        model=job.model,
        language=job.language,
        task=stt_pb2.TASK_TRANSLATE if job.translate else stt_pb2.TASK_TRANSCRIBE,
        prompt=job.prompt,
        hotwords=job.hotwords,
        temperature=job.temperature,
        beam_size=job.beam_size,
        word_timestamps=job.word_timestamps,
        voice_activity_detection=job.voice_activity_detection,
        condition_on_previous_text=job.condition_on_previous_text,
    )


def _live_config(job: LiveSpeech) -> stt_pb2.LiveTranscriptionConfig:
    silence = job.end_silence
    return stt_pb2.LiveTranscriptionConfig(
        transcription=_config(job.recording),
        format=stt_pb2.LiveAudioFormat(sample_rate=job.sample_rate),
        end_silence=None if silence is None else duration_to_proto(silence),
        partial_results=True,
    )


def _live_step(message: stt_pb2.TranscribeLiveAudioResponse) -> LiveStep:
    match message.WhichOneof("step"):
        case "partial":
            return Heard(segment=_segment(message.partial), final=False)
        case "final":
            segment = _segment(message.final)
            return Heard(segment=segment, final=True, language=message.language)
        case "speech_started":
            started = message.speech_started
            return SpeechStarted(index=started.index, start=duration_from_proto(started.start))
        case "speech_stopped":
            stopped = message.speech_stopped
            return SpeechStopped(index=stopped.index, end=duration_from_proto(stopped.end))
        case "speech_dismissed":
            return SpeechDismissed(index=message.speech_dismissed.index)
    return None


def _step(message: stt_pb2.TranscribeAudioResponse) -> Step:
    which = message.WhichOneof("step")
    if which == "info":
        return _info(message.info)
    return _segment(message.segment) if which == "segment" else None


def _info(info: stt_pb2.TranscriptionInfo) -> Info:
    return Info(
        language=info.language,
        language_probability=info.language_probability,
        duration=duration_from_proto(info.duration),
        speech_duration=duration_from_proto(info.speech_duration),
    )


def _segment(segment: stt_pb2.Segment) -> Segment:
    return Segment(
        index=segment.index,
        start=duration_from_proto(segment.start),
        end=duration_from_proto(segment.end),
        text=segment.text,
        words=[
            Word(
                start=duration_from_proto(word.start),
                end=duration_from_proto(word.end),
                text=word.text,
                probability=word.probability,
            )
            for word in segment.words
        ],
        average_logprob=segment.average_logprob,
        no_speech_probability=segment.no_speech_probability,
        compression_ratio=segment.compression_ratio,
        temperature=segment.temperature,
        tokens=list(segment.tokens),
        seek=segment.seek,
    )
