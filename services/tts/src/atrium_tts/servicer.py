"""SpeechSynthesisService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc.aio
from google.protobuf.message import Message

from atrium.tts.v1 import tts_pb2 as pb
from atrium.tts.v1 import tts_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue
from atrium_common.chunks import UploadSpool
from atrium_common.context import current_context
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument, MediaError, NotFound, PermissionDenied
from atrium_common.service import Queue, WorkEstimate
from atrium_common.wire import model_to_proto, usage_to_proto
from atrium_tts import convert
from atrium_tts.convert import TextLimits
from atrium_tts.domain import SpeechJob
from atrium_tts.engines.router import EngineRouter
from atrium_tts.speech import Speaker
from atrium_tts.speech_plan import Planner, speaks, upper_bound
from atrium_tts.voices import VoiceStore
from atrium_tts.voices_maker import VoiceMaker
from atrium_tts.voices_reference import ReferenceLimits

_Context = grpc.aio.ServicerContext[Message, Message]


class SpeechServicer(pb_grpc.SpeechSynthesisServiceServicer):
    """Serves the speech models of the catalogue."""

    service_name = "atrium.tts.v1.SpeechSynthesisService"

    def __init__(
        self,
        engines: EngineRouter,
        catalogue: Catalogue,
        *,
        speaker: Speaker,
        voices: VoiceStore,
        references: ReferenceLimits | None = None,
        limits: TextLimits | None = None,
    ) -> None:
        """Puts the parts together.

        Args:
            engines: The engines of the catalogue's speech models.
            catalogue: Resolves names and aliases.
            speaker: Lets them speak.
            voices: The tenants' own voices.
            references: What recordings voices are made from.
            limits: Longest texts.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._speaker = speaker
        self._voices = voices
        self._planner = Planner(engines, voices)
        self._maker = VoiceMaker(
            engines,
            catalogue,
            speaker=speaker,
            voices=voices,
            limits=references or ReferenceLimits(),
        )
        self._limits = limits or TextLimits()
        self.queues: dict[str, Queue] = dict(speaker.queues)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        pb_grpc.add_SpeechSynthesisServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Bounds what a direct caller may consume; see `Servicer.estimate`.

        Raises:
            NotFound: The model is unknown.
            InvalidArgument: The request can't be served.
        """
        del method
        if isinstance(request, pb.SynthesizeSpeechRequest):
            job = self._job(request)
            usage = Usage(model=job.model, characters=len(job.input), output_audio=upper_bound(job))
            return WorkEstimate(Capability.SPEECH, job.model, usage)
        if isinstance(request, pb.CreateVoiceRequest):
            model = self._maker.model(_config(request).model)
            usage = Usage(model=model, input_audio=self._maker.limits.longest)
            return WorkEstimate(Capability.SPEECH, model, usage)
        return None

    async def SynthesizeSpeech(
        self, request: pb.SynthesizeSpeechRequest, context: _Context
    ) -> AsyncIterator[pb.SynthesizeSpeechResponse]:
        """Speaks a text, sentence by sentence."""
        del context
        caller = current_context()
        plan = await self._planner.plan(self._job(request), tenant=caller.tenant)
        async with aclosing(self._speaker.speak(plan, caller)) as events:
            async for event in events:
                yield convert.event_to_proto(event)

    async def ListVoices(
        self, request: pb.ListVoicesRequest, context: _Context
    ) -> pb.ListVoicesResponse:
        """Lists the built-in voices, then the tenant's own."""
        del context
        tenant = current_context().tenant
        language = convert.language_of(request.language, field="language")
        voices = list(self._engines.voices())
        if tenant:
            voices += await self._voices.list(tenant)
        if request.model:
            model = self._catalogue.resolve(request.model, Capability.SPEECH).id
            voices = [voice for voice in voices if model in voice.models]
        if language:
            voices = [voice for voice in voices if speaks(voice, language)]
        return pb.ListVoicesResponse(voices=[convert.voice_to_proto(voice) for voice in voices])

    async def CreateVoice(
        self, request_iterator: AsyncIterator[pb.CreateVoiceRequest], context: _Context
    ) -> pb.CreateVoiceResponse:
        """Makes a voice of the caller's tenant from a recording."""
        del context
        tenant = _tenant()
        steps = aiter(request_iterator)
        config = _config(await anext(steps, None))
        wanted = convert.voice_request(config)
        order = await self._maker.order(config.model, wanted, tenant=tenant)
        limits = self._maker.limits
        async with UploadSpool(limit=limits.max_bytes, folder=limits.directory) as spool:
            digest, path = await _upload(steps, spool)
            reference = await self._maker.read(path)
        voice, usage = await self._maker.make(
            order, reference, recording_sha256=digest.hex(), caller=current_context()
        )
        return pb.CreateVoiceResponse(
            voice=convert.voice_to_proto(voice), usage=usage_to_proto(usage)
        )

    async def DeleteVoice(
        self, request: pb.DeleteVoiceRequest, context: _Context
    ) -> pb.DeleteVoiceResponse:
        """Deletes a voice of the caller's tenant."""
        del context
        if not await self._voices.delete(_tenant(), request.voice):
            raise NotFound("The tenant has no such voice.", reason="VOICE_NOT_FOUND", field="voice")
        return pb.DeleteVoiceResponse()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: _Context
    ) -> pb.ListModelsResponse:
        """Lists the speech models, in catalogue order."""
        del request, context
        models = [model_to_proto(model) for model in self._engines.models()]
        return pb.ListModelsResponse(models=models)

    def _job(self, request: pb.SynthesizeSpeechRequest) -> SpeechJob:
        entry = self._catalogue.resolve(request.model, Capability.SPEECH)
        return convert.job_from_proto(request, model=entry.id, limits=self._limits)


def _tenant() -> str:
    tenant = current_context().tenant
    if not tenant:
        raise PermissionDenied("Voices belong to tenants.", reason="TENANT_REQUIRED")
    return tenant


def _config(request: pb.CreateVoiceRequest | None) -> pb.VoiceConfig:
    if request is None or request.WhichOneof("step") != "config":
        raise InvalidArgument("The first message holds the config.", field="config")
    return request.config


async def _upload(
    steps: AsyncIterator[pb.CreateVoiceRequest], spool: UploadSpool
) -> tuple[bytes, Path]:
    """Writes chunks until the end; returns the SHA-256 and the checked file.

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
                sha256 = request.end.sha256
                return sha256, await spool.finish(sha256=sha256, size=request.end.size)
            case "config":
                raise InvalidArgument("The config comes once.", field="config")
            case _:
                raise InvalidArgument("A message holds a chunk or the end.", field="step")
    raise MediaError(
        "The upload broke off before its end.", reason="UPLOAD_INCOMPLETE", field="end"
    )
