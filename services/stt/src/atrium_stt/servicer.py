"""TranscriptionService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`. An upload is received and decoded first, then it waits for
its engine: only requests that can be served take a place in the queue, and the fair order
goes by real seconds of audio.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
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
from atrium_common.errors import InvalidArgument, MediaError, Unimplemented
from atrium_common.service import WorkEstimate
from atrium_common.wire import model_to_proto
from atrium_common.work import WorkQueue
from atrium_stt import convert
from atrium_stt.audio import open_recording
from atrium_stt.domain import TranscriptionEvent, TranscriptionJob
from atrium_stt.engines.router import EngineRouter
from atrium_stt.recording import AudioLimits, Recording

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
            clock: Monotonic seconds; the same clock as the context's deadlines.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._limits = limits or AudioLimits()
        self._max_bytes = max_bytes
        self._reserve = min(reserve, self._limits.duration)
        self._decoding = asyncio.Semaphore(max_decoding)
        self.queues = {
            engine.name: WorkQueue(slots=engine.scheduling.slots, max_queue=max_queue, clock=clock)
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
        if not isinstance(request, pb.TranscribeAudioRequest):
            return None
        _, entry = self._job(request)
        usage = Usage(model=entry.id, input_audio=self._reserve)
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
        """Refuses: live audio comes with a later release."""
        del request_iterator, context
        raise Unimplemented("TranscribeLiveAudio is not offered yet; use TranscribeAudio.")
        yield pb.TranscribeLiveAudioResponse()  # makes this the generator that grpc expects

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
        ) as ticket:
            # Engines write their streams as async generators; the port promises less.
            stream = cast(
                "AsyncGenerator[TranscriptionEvent, None]", engine.transcribe(job, recording)
            )
            async with aclosing(stream) as events:
                async for event in events:
                    yield convert.event_to_proto(event, queue_time=ticket.queue_time)


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
