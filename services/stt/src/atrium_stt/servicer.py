"""TranscriptionService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`. An upload is received and decoded first, then it waits for
its engine: only requests that can be served take a place in the queue, and the fair order
goes by real seconds of audio.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

import grpc.aio
from google.protobuf.message import Message

from atrium.stt.v1 import stt_pb2 as pb
from atrium.stt.v1 import stt_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.chunks import UploadSpool
from atrium_common.context import cover_work, current_context
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument, MediaError, Overloaded
from atrium_common.service import WorkEstimate
from atrium_common.wire import model_to_proto
from atrium_common.work import WorkQueue
from atrium_stt import convert
from atrium_stt.audio import open_recording
from atrium_stt.domain import LiveJob, TranscriptionEvent, TranscriptionJob
from atrium_stt.engines.router import EngineRouter
from atrium_stt.live.listening import LiveLimits
from atrium_stt.live.session import LiveSession
from atrium_stt.live.turns import Turns
from atrium_stt.recording import AudioLimits, Recording

_STEP_SECONDS = 30.0
"""What a step of a recording may be at most: a window."""
_FULL_RETRY = timedelta(seconds=10)

_Context = grpc.aio.ServicerContext[Message, Message]


class TranscriptionServicer(pb_grpc.TranscriptionServiceServicer):
    """Serves the transcription models of the catalogue."""

    service_name = "atrium.stt.v1.TranscriptionService"

    def __init__(
        self,
        engines: EngineRouter,
        catalogue: Catalogue,
        *,
        limits: AudioLimits | None = None,
        max_bytes: int = 1024**3,
        max_queue: int = 64,
        max_decoding: int = 2,
        reserve: timedelta = timedelta(minutes=1),
        live: LiveLimits | None = None,
        max_live_sessions: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts a queue in front of each engine.

        Args:
            engines: The engines of the catalogue's transcription models.
            catalogue: Resolves names and aliases.
            limits: Longest audio, and where it is spooled.
            max_bytes: Largest upload.
            max_queue: Requests that may wait for an engine.
            max_decoding: Uploads decoded at once.
            reserve: Audio that `estimate` tells before the upload tells its length.
            live: How long a live session may last and stand still.
            max_live_sessions: Live callers at once.
            clock: Monotonic seconds; the same clock as the context's deadlines.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._limits = limits or AudioLimits()
        self._max_bytes = max_bytes
        self._reserve = min(reserve, self._limits.duration)
        self._decoding = asyncio.Semaphore(max_decoding)
        self._live = live or LiveLimits(reserve=reserve)
        self._max_live_sessions = max_live_sessions
        self._clock = clock
        self.live_sessions = 0
        self.queues = {
            engine.name: WorkQueue(slots=engine.scheduling.slots, max_queue=max_queue, clock=clock)
            for engine in engines.engines
        }
        # Room for all who may stand here at once, so that nobody is refused in the middle.
        self.turns = {
            engine.name: WorkQueue(
                slots=engine.scheduling.slots,
                max_queue=engine.scheduling.slots + max_live_sessions,
                clock=clock,
            )
            for engine in engines.engines
        }

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        pb_grpc.add_TranscriptionServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Tells what a direct caller's transcription reserves; see `Servicer.estimate`.

        The first message says nothing of the audio's length, so this is a first share:
        the reservation grows to the whole once the upload is decoded, before any work.

        Raises:
            NotFound: The model is unknown.
            InvalidArgument: The request can't be served.
        """
        del method
        if isinstance(request, pb.TranscribeAudioRequest):
            _, entry = self._job(request)
            audio = self._reserve
        elif isinstance(request, pb.TranscribeLiveAudioRequest):
            _, entry = self._live_job(request)
            audio = self._live.reserve
        else:
            return None
        usage = Usage(model=entry.id, input_audio=audio)
        return WorkEstimate(Capability.TRANSCRIPTION, entry.id, usage)

    async def TranscribeAudio(
        self, request_iterator: AsyncIterator[pb.TranscribeAudioRequest], context: _Context
    ) -> AsyncIterator[pb.TranscribeAudioResponse]:
        """Receives and decodes the audio, waits its turn, streams what is heard."""
        del context
        steps = aiter(request_iterator)
        job, entry = self._job(await anext(steps, None))
        self._engines.check(job)
        recording = await self._receive(steps)
        with recording:
            await cover_work(Usage(model=entry.id, input_audio=recording.duration))
            async with aclosing(self._run(job, entry, recording)) as answers:
                async for answer in answers:
                    yield answer

    async def TranscribeLiveAudio(
        self, request_iterator: AsyncIterator[pb.TranscribeLiveAudioRequest], context: _Context
    ) -> AsyncIterator[pb.TranscribeLiveAudioResponse]:
        """Listens while the caller speaks, and says what it hears; see `LiveSession`."""
        del context
        steps = aiter(request_iterator)
        job, entry = self._live_job(await anext(steps, None))
        engine = self._engines.engine_of(entry.id)
        caller = current_context()

        async def cover(audio: timedelta) -> None:
            await cover_work(Usage(model=entry.id, input_audio=audio))

        with self._live_seat():
            async with self._engines.open_live(job) as transcriber:
                session = LiveSession(
                    job,
                    transcriber,
                    Turns(
                        self.turns[engine.name],
                        tenant=caller.tenant,
                        weight=caller.weight,
                        clock=self._clock,
                    ),
                    usage=Usage(model=entry.id, model_digest=entry.digest, engine=engine.name),
                    cover=cover,
                    limits=self._live,
                    clock=self._clock,
                )
                chunks = _chunks(steps, sample_rate=job.sample_rate)
                async with aclosing(session.run(chunks)) as events:
                    async for event in events:
                        yield convert.live_event_to_proto(event)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: _Context
    ) -> pb.ListModelsResponse:
        """Lists the transcription models, in catalogue order."""
        del request, context
        models = [model_to_proto(model) for model in self._engines.models()]
        return pb.ListModelsResponse(models=models)

    def _job(
        self, request: pb.TranscribeAudioRequest | None
    ) -> tuple[TranscriptionJob, ModelEntry]:
        if request is None or request.WhichOneof("step") != "config":
            raise InvalidArgument("The first message holds the config.", field="config")
        entry = self._catalogue.resolve(request.config.model, Capability.TRANSCRIPTION)
        return convert.job_from_proto(request.config, model=entry.id), entry

    def _live_job(
        self, request: pb.TranscribeLiveAudioRequest | None
    ) -> tuple[LiveJob, ModelEntry]:
        if request is None or request.WhichOneof("step") != "config":
            raise InvalidArgument("The first message holds the config.", field="config")
        name = request.config.transcription.model
        entry = self._catalogue.resolve(name, Capability.TRANSCRIPTION)
        job = convert.live_job_from_proto(request.config, model=entry.id)
        self._engines.check(job.transcription)
        return job, entry

    @contextmanager
    def _live_seat(self) -> Iterator[None]:
        if self.live_sessions >= self._max_live_sessions:
            raise Overloaded(
                f"{self.live_sessions} live sessions are running, as many as may.",
                retry_after=_FULL_RETRY,
            )
        self.live_sessions += 1
        try:
            yield
        finally:
            self.live_sessions -= 1

    async def _receive(self, steps: AsyncIterator[pb.TranscribeAudioRequest]) -> Recording:
        """Takes an upload to its end and decodes it; nothing of it is kept but the samples."""
        async with UploadSpool(limit=self._max_bytes, folder=self._limits.directory) as spool:
            path = await _upload(steps, spool)
            async with self._decoding:
                return await open_recording(path, limits=self._limits)

    async def _run(
        self, job: TranscriptionJob, entry: ModelEntry, recording: Recording
    ) -> AsyncGenerator[pb.TranscribeAudioResponse, None]:
        """Runs a transcription in its turn; closing it closes the engine's stream first."""
        caller = current_context()
        engine = self._engines.engine_of(entry.id)
        async with self.queues[engine.name].enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=recording.duration.total_seconds(),
            deadline=caller.deadline,
            model=entry.id,
        ) as ticket:
            # Engines write their streams as async generators; the port promises less.
            stream = cast(
                "AsyncGenerator[TranscriptionEvent, None]", engine.transcribe(job, recording)
            )
            async with aclosing(stream) as events:
                while (event := await self._step(engine.name, events, recording)) is not None:
                    yield convert.event_to_proto(event, queue_time=ticket.queue_time)

    async def _step(
        self,
        engine: str,
        events: AsyncGenerator[TranscriptionEvent, None],
        recording: Recording,
    ) -> TranscriptionEvent | None:
        """Takes one step of a transcription in a turn that live speakers get theirs between."""
        caller = current_context()
        async with self.turns[engine].enter(
            tenant=caller.tenant,
            weight=caller.weight,
            cost=min(recording.duration.total_seconds(), _STEP_SECONDS),
        ):
            return await anext(events, None)


async def _upload(steps: AsyncIterator[pb.TranscribeAudioRequest], spool: UploadSpool) -> Path:
    """Writes chunks until the end, and returns the checked file.

    Raises:
        InvalidArgument: A second config, or an empty message.
        MediaError: The end is missing, or does not match what arrived.
        TooLarge: The upload is over its limit.
    """
    async for request in steps:
        match request.WhichOneof("step"):
            case "chunk":
                await spool.write(request.chunk.data)
            case "end":
                return await spool.finish(sha256=request.end.sha256, size=request.end.size)
            case "config":
                raise InvalidArgument("The config comes once.", field="config")
            case _:
                raise InvalidArgument("A message holds a chunk or the end.", field="step")
    raise MediaError(
        "The upload broke off before its end.", reason="UPLOAD_INCOMPLETE", field="end"
    )


async def _chunks(
    steps: AsyncIterator[pb.TranscribeLiveAudioRequest], *, sample_rate: int
) -> AsyncIterator[bytes]:
    """Takes the audio out of a live caller's messages."""
    async for request in steps:
        yield convert.chunk_from_proto(request, sample_rate=sample_rate)
