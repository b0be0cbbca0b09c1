"""TextToImageService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio
from google.protobuf.message import Message

from atrium.text2image.v1 import text2image_pb2 as pb
from atrium.text2image.v1 import text2image_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue
from atrium_common.context import current_context
from atrium_common.domain import Capability, Usage
from atrium_common.service import Queue, WorkEstimate
from atrium_common.wire import model_to_proto
from atrium_diffusion.domain import OutputOptions, RequestPlan
from atrium_diffusion.router import PictureRouter
from atrium_diffusion.studio import Studio
from atrium_diffusion.wire import limits_to_proto
from atrium_text2image import convert

_Context = grpc.aio.ServicerContext[Message, Message]


class TextToImageServicer(pb_grpc.TextToImageServiceServicer):
    """Serves the catalogue's models that draw from text."""

    service_name = "atrium.text2image.v1.TextToImageService"

    def __init__(self, engines: PictureRouter, catalogue: Catalogue, *, studio: Studio) -> None:
        """Puts the parts together.

        Args:
            engines: The engines of those models.
            catalogue: Resolves names and aliases.
            studio: Lets them draw.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._studio = studio
        self.queues: dict[str, Queue] = dict(studio.queues)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        pb_grpc.add_TextToImageServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Bounds what a direct caller may consume; see `Servicer.estimate`.

        Raises:
            NotFound: The model is unknown.
            InvalidArgument: The request can't be served.
        """
        del method
        if not isinstance(request, pb.GenerateImageRequest):
            return None
        plan, _ = self._plan(request)
        usage = Usage(
            model=plan.job.model,
            images=len(plan.pictures),
            millimegapixel_steps=plan.millimegapixel_steps,
        )
        return WorkEstimate(Capability.TEXT_TO_IMAGE, plan.job.model, usage)

    async def GenerateImage(
        self, request: pb.GenerateImageRequest, context: _Context
    ) -> AsyncIterator[pb.GenerateImageResponse]:
        """Draws pictures, and tells of every step."""
        del context
        plan, output = self._plan(request)
        async with aclosing(self._studio.draw(plan, output, current_context())) as answers:
            seated = await anext(answers)
            yield convert.info_to_proto(plan, seated.usage)
            async for answer in answers:
                yield convert.answer_to_proto(answer)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: _Context
    ) -> pb.ListModelsResponse:
        """Lists the models that draw, in catalogue order, with what they take."""
        del request, context
        models = self._engines.models()
        return pb.ListModelsResponse(
            models=[model_to_proto(model) for model in models],
            limits=[limits_to_proto(self._engines.limits(model.id)) for model in models],
        )

    def _plan(self, request: pb.GenerateImageRequest) -> tuple[RequestPlan, OutputOptions]:
        entry = self._catalogue.resolve(request.model, Capability.TEXT_TO_IMAGE)
        job = convert.job_from_proto(request, model=entry.id)
        output = convert.output_options(request)
        return self._engines.plan(job), output
