"""Client of the img2img service: sends pictures in pieces, gives what becomes of them."""

from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

import grpc.aio

from atrium.common.v1 import media_pb2
from atrium.img2img.v1 import img2img_pb2 as pb
from atrium.img2img.v1 import img2img_pb2_grpc as pb_grpc
from atrium_gateway.upstreams import pictures_convert as convert
from atrium_gateway.upstreams.calls import Credentials, StreamedCall, unmetered
from atrium_gateway.upstreams.pictures import LIMITS_SECONDS, Begun, Edit, Limits, Step
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.uploads import pieces

SERVICE = "atrium.img2img.v1.ImageEditService"
EDIT = f"/{SERVICE}/EditImage"

EditCall = StreamedCall[pb.EditImageResponse, Step]

_MODES = {
    name.removeprefix("RESIZE_MODE_").lower(): value
    for name, value in pb.ResizeMode.items()
    if value != pb.RESIZE_MODE_UNSPECIFIED
}


class ImageEditUpstream:
    """The img2img service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = pb_grpc.ImageEditServiceStub(channel)
        self._credentials = credentials

    def edit(
        self, job: Edit, images: Sequence[BinaryIO], mask: BinaryIO | None, caller: Caller
    ) -> EditCall:
        """Starts an edit; the files are read to their ends, from where they stand."""
        call = self._stub.EditImage(
            _upload(job, images, mask),
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


async def _upload(
    job: Edit, images: Sequence[BinaryIO], mask: BinaryIO | None
) -> AsyncIterator[pb.EditImageRequest]:
    yield pb.EditImageRequest(config=_config(job, len(images), has_mask=mask is not None))
    for image in images:
        async for piece in pieces(image):
            if isinstance(piece, media_pb2.MediaChunk):
                yield pb.EditImageRequest(image_chunk=piece)
            else:
                yield pb.EditImageRequest(image_end=piece)
    if mask is None:
        return
    async for piece in pieces(mask):
        if isinstance(piece, media_pb2.MediaChunk):
            yield pb.EditImageRequest(mask_chunk=piece)
        else:
            yield pb.EditImageRequest(mask_end=piece)


def _config(job: Edit, count: int, *, has_mask: bool) -> pb.EditConfig:
    return pb.EditConfig(
        model=job.model,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        strength=job.strength,
        image_count=count,
        has_mask=has_mask,
        mask_blur=job.mask_blur,
        resize_mode=_MODES[job.resize_mode],
        width=job.width,
        height=job.height,
        n=job.n,
        denoising=convert.denoising_to_proto(job.denoising),
        output=convert.output_to_proto(job.output),
        preview=convert.previews_to_proto(job.previews),
        priority=job.priority,
        truncate_prompt=job.truncate_prompt,
    )


def _step(message: pb.EditImageResponse) -> Step:
    if message.WhichOneof("step") == "info":
        info = message.info
        sizes = [(size.width, size.height) for size in info.sizes]
        return Begun(count=info.count, steps=info.steps, sizes=sizes, seed=info.seed)
    return convert.step(message)
