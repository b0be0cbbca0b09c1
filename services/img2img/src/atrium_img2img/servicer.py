"""ImageEditService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`. Whatever the config alone can be refused for is refused
before the uploads are read.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import grpc.aio
import numpy as np
from google.protobuf.message import Message

from atrium.img2img.v1 import img2img_pb2 as pb
from atrium.img2img.v1 import img2img_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue
from atrium_common.context import cover_work, current_context
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument
from atrium_common.images import ResizeMode, Size, SizeBounds, target_size
from atrium_common.intake import UploadPart
from atrium_common.service import Queue, WorkEstimate
from atrium_common.wire import model_to_proto
from atrium_diffusion.domain import ModelLimits, RequestPlan, Source, counted
from atrium_diffusion.router import PictureRouter
from atrium_diffusion.studio import Studio
from atrium_diffusion.wire import limits_to_proto
from atrium_img2img import convert
from atrium_img2img.domain import EditOrder
from atrium_img2img.uploads import Uploads

_Context = grpc.aio.ServicerContext[Message, Message]


class ImageEditServicer(pb_grpc.ImageEditServiceServicer):
    """Serves the catalogue's models that edit pictures."""

    service_name = "atrium.img2img.v1.ImageEditService"

    def __init__(
        self, engines: PictureRouter, catalogue: Catalogue, *, studio: Studio, uploads: Uploads
    ) -> None:
        """Puts the parts together.

        Args:
            engines: The engines of those models.
            catalogue: Resolves names and aliases.
            studio: Lets them draw.
            uploads: Receives what they edit.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._studio = studio
        self._uploads = uploads
        self.queues: dict[str, Queue] = {**studio.queues, "decoding": uploads.decoding}

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        pb_grpc.add_ImageEditServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Bounds what a direct caller may consume; see `Servicer.estimate`.

        The first message does not tell the uploads' sizes, so a size that is not asked
        for counts as the largest that the model takes.

        Raises:
            NotFound: The model is unknown.
            InvalidArgument: The request can't be served.
        """
        del method
        if not isinstance(request, pb.EditImageRequest):
            return None
        order = self._order(request)
        trial = self._trial(order)
        model = order.job.model
        most = order.width * order.height or self._engines.limits(model).max_pixels
        steps = sum(picture.steps for picture in trial.pictures)
        usage = Usage(
            model=model, images=order.pictures, millimegapixel_steps=counted(most * steps)
        )
        return WorkEstimate(Capability.IMAGE_TO_IMAGE, model, usage)

    async def EditImage(
        self, request_iterator: AsyncIterator[pb.EditImageRequest], context: _Context
    ) -> AsyncIterator[pb.EditImageResponse]:
        """Receives the uploads, then draws, and tells of every step."""
        del context
        requests = aiter(request_iterator)
        order = self._order(await anext(requests, None))
        self._trial(order)
        self._studio.check_ready(order.job.model)
        bounds = _bounds(self._engines.limits(order.job.model))
        parts, caller = _parts(requests), current_context()
        async with self._uploads.receive(parts, order, bounds, caller) as sources:
            plan = self._engines.plan(replace(order.job, sources=sources))
            await cover_work(
                Usage(
                    model=plan.job.model,
                    images=len(plan.pictures),
                    millimegapixel_steps=plan.millimegapixel_steps,
                )
            )
            async with aclosing(self._studio.draw(plan, order.output, caller)) as answers:
                seated = await anext(answers)
                yield convert.info_to_proto(plan, seated.usage)
                async for answer in answers:
                    yield convert.answer_to_proto(answer)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: _Context
    ) -> pb.ListModelsResponse:
        """Lists the models that edit, in catalogue order, with what they take."""
        del request, context
        models = self._engines.models()
        return pb.ListModelsResponse(
            models=[model_to_proto(model) for model in models],
            limits=[limits_to_proto(self._engines.limits(model.id)) for model in models],
        )

    def _order(self, request: pb.EditImageRequest | None) -> EditOrder:
        if request is None or request.WhichOneof("step") != "config":
            raise InvalidArgument("The first message holds the config.", field="config")
        entry = self._catalogue.resolve(request.config.model, Capability.IMAGE_TO_IMAGE)
        return convert.order_from_proto(request.config, model=entry.id)

    def _trial(self, order: EditOrder) -> RequestPlan:
        """Plans the order with blank pictures of the native size, to refuse it before uploads."""
        limits = self._engines.limits(order.job.model)
        native = Size(limits.native_width, limits.native_height)
        if (order.width and order.height) or order.resize is ResizeMode.NONE:
            target_size(
                native,
                mode=order.resize,
                bounds=_bounds(limits),
                width=order.width,
                height=order.height,
            )
        blank = Source(
            pixels=np.broadcast_to(np.uint8(0), (native.height, native.width, 3)),
            mask=np.broadcast_to(np.float32(0), (native.height, native.width))
            if order.has_mask
            else None,
        )
        return self._engines.plan(replace(order.job, sources=(blank,) * order.uploads))


def _bounds(limits: ModelLimits) -> SizeBounds:
    return SizeBounds(
        native_pixels=limits.native_width * limits.native_height,
        min_side=limits.min_side,
        max_side=limits.max_side,
        max_pixels=limits.max_pixels,
    )


async def _parts(requests: AsyncIterator[pb.EditImageRequest]) -> AsyncIterator[UploadPart]:
    async for request in requests:
        yield convert.part_from_proto(request)
