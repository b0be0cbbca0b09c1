"""Client of the text2image service: pictures from text, step by step."""

from collections.abc import Sequence

import grpc.aio

from atrium.text2image.v1 import text2image_pb2 as pb
from atrium.text2image.v1 import text2image_pb2_grpc as pb_grpc
from atrium_gateway.upstreams import pictures_convert as convert
from atrium_gateway.upstreams.calls import Credentials, StreamedCall, unmetered
from atrium_gateway.upstreams.pictures import LIMITS_SECONDS, Begun, Drawing, Limits, Step
from atrium_gateway.upstreams.port import Caller

SERVICE = "atrium.text2image.v1.TextToImageService"
GENERATE = f"/{SERVICE}/GenerateImage"

DrawingCall = StreamedCall[pb.GenerateImageResponse, Step]


class TextToImageUpstream:
    """The text2image service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = pb_grpc.TextToImageServiceStub(channel)
        self._credentials = credentials

    def draw(self, job: Drawing, caller: Caller) -> DrawingCall:
        """Starts to draw; steps, previews and pictures come as they are made."""
        call = self._stub.GenerateImage(
            _request(job),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, _step)

    async def limits(self, *, tenant: str, request_id: str) -> Sequence[Limits]:
        """Lists what the models take.

        Raises:
            Unavailable: The service does not answer.
        """
        reply = await unmetered(
            self._stub.ListModels(
                pb.ListModelsRequest(),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=LIMITS_SECONDS,
            )
        )
        return [convert.limits(one) for one in reply.limits]


def _request(job: Drawing) -> pb.GenerateImageRequest:
    return pb.GenerateImageRequest(
        model=job.model,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        width=job.width,
        height=job.height,
        n=job.n,
        denoising=convert.denoising_to_proto(job.denoising),
        output=convert.output_to_proto(job.output),
        preview=convert.previews_to_proto(job.previews),
        priority=job.priority,
        truncate_prompt=job.truncate_prompt,
    )


def _step(message: pb.GenerateImageResponse) -> Step:
    if message.WhichOneof("step") == "info":
        info = message.info
        sizes = [(info.width, info.height)]
        return Begun(count=info.n, steps=info.steps, sizes=sizes, seed=info.seed)
    return convert.step(message)
