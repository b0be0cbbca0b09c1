"""ImageUnderstandingService over the engines: one method per RPC, no model code.

`__main__` hands it to `serve`. Whatever the config alone can be refused for is refused
before the upload is read.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import grpc.aio
from google.protobuf.message import Message

from atrium.img2text.v1 import img2text_pb2 as pb
from atrium.img2text.v1 import img2text_pb2_grpc as pb_grpc
from atrium_common.catalogue import Catalogue
from atrium_common.context import cover_work, current_context, report_usage
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument
from atrium_common.intake import UploadPart
from atrium_common.service import Queue, WorkEstimate
from atrium_common.wire import model_to_proto
from atrium_img2text import bounds, convert
from atrium_img2text.analysing import Analysis
from atrium_img2text.domain import (
    AnalysisOrder,
    DescriptionJob,
    DescriptionOrder,
    QuestionJob,
    QuestionOrder,
)
from atrium_img2text.engines.router import SightRouter
from atrium_img2text.extracting import Extracting
from atrium_img2text.intake import Intake
from atrium_img2text.pages import ReadingJob
from atrium_img2text.paths import inside
from atrium_img2text.reading import ReadingOrder
from atrium_img2text.seats import Seats
from atrium_img2text.seeing import Seeing

_Context = grpc.aio.ServicerContext[Message, Message]


class ImageUnderstandingServicer(pb_grpc.ImageUnderstandingServiceServicer):
    """Serves the catalogue's models that see and those that read."""

    service_name = "atrium.img2text.v1.ImageUnderstandingService"

    def __init__(
        self,
        engines: SightRouter,
        catalogue: Catalogue,
        *,
        intake: Intake,
        max_pages: int = 100,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts the parts together.

        Args:
            engines: The engines of those models.
            catalogue: Resolves names and aliases.
            intake: Receives what they look at.
            max_pages: Most pages that a request may ask for.
            max_queue: Requests that may wait for an engine.
            clock: Monotonic seconds; the same clock as the context's deadlines.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._intake = intake
        self._max_pages = max_pages
        self._seats = seats = Seats(engines, max_queue=max_queue, clock=clock)
        self._seeing = Seeing(engines, seats)
        self._extracting = Extracting(
            engines, seats, held=intake.held, folder=intake.limits.directory
        )
        self.queues: dict[str, Queue] = {
            **seats.queues,
            "decoding": intake.opener.decoding,
            "drawing": intake.opener.drawing,
        }

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        pb_grpc.add_ImageUnderstandingServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Bounds what a direct caller may consume, by the config; see `Servicer.estimate`.

        Raises:
            NotFound: The model is unknown.
            InvalidArgument: The request can't be served.
        """
        del method
        models: Sequence[str] = ()
        if isinstance(request, pb.DescribeImageRequest):
            bound = bounds.description_bound(self._description(request))
        elif isinstance(request, pb.AnswerQuestionRequest):
            bound = bounds.question_bound(self._question(request))
        elif isinstance(request, pb.ExtractTextRequest):
            bound = bounds.reading_bound(self._extraction(request))
        elif isinstance(request, pb.AnalyzeImageRequest):
            order = self._analysis(request)
            bound, models = bounds.analysis_bound(order), order.models
        else:
            return None
        others = tuple(model for model in models if model != bound.model)
        return WorkEstimate(Capability.IMAGE_TO_TEXT, bound.model, bound, others)

    async def DescribeImage(
        self, request_iterator: AsyncIterator[pb.DescribeImageRequest], context: _Context
    ) -> AsyncIterator[pb.DescribeImageResponse]:
        """Receives the picture, waits its turn, gives the captions."""
        del context
        requests = aiter(request_iterator)
        order = self._description(await anext(requests, None))
        self._engines.vision(order.model).check_description(order)
        caller = current_context()
        async with self._intake.picture(_parts(requests), caller) as pixels:
            job = DescriptionJob(order=order, pixels=pixels)
            async with aclosing(self._seeing.describe(job, caller, report_usage)) as steps:
                async for step in steps:
                    yield convert.description_to_proto(step)

    async def AnswerQuestion(
        self, request_iterator: AsyncIterator[pb.AnswerQuestionRequest], context: _Context
    ) -> AsyncIterator[pb.AnswerQuestionResponse]:
        """Receives the picture, waits its turn, gives the answer as it is written."""
        del context
        requests = aiter(request_iterator)
        order = self._question(await anext(requests, None))
        self._engines.vision(order.model).check_question(order)
        caller = current_context()
        async with self._intake.picture(_parts(requests), caller) as pixels:
            job = QuestionJob(order=order, pixels=pixels)
            async with aclosing(self._seeing.answer(job, caller, report_usage)) as steps:
                async for step in steps:
                    yield convert.answer_to_proto(step)

    async def ExtractText(
        self, request_iterator: AsyncIterator[pb.ExtractTextRequest], context: _Context
    ) -> AsyncIterator[pb.ExtractTextResponse]:
        """Receives the document, gives its pages as they are read, then its form."""
        del context
        requests = aiter(request_iterator)
        order = self._extraction(await anext(requests, None))
        self._engines.reading(order.model).check_reading(order)
        caller = current_context()
        async with self._intake.document(_parts(requests), caller) as document:
            job = ReadingJob(order=order, document=document, caller=caller, report=report_usage)
            await cover_work(Usage(model=order.model, pages=len(job.pages)))
            async with aclosing(self._extracting.read(job)) as steps:
                async for step in steps:
                    yield convert.extraction_to_proto(step)

    async def AnalyzeImage(
        self, request_iterator: AsyncIterator[pb.AnalyzeImageRequest], context: _Context
    ) -> AsyncIterator[pb.AnalyzeImageResponse]:
        """Receives the upload, does all parts at once, gives results as each is ready."""
        del context
        requests = aiter(request_iterator)
        order = self._analysis(await anext(requests, None))
        self._check(order)
        caller = current_context()
        analysis = Analysis(
            order,
            seeing=self._seeing,
            extracting=self._extracting,
            held=self._intake.held,
            label=self._seats.label(order.models[0]),
            caller=caller,
            report=report_usage,
        )
        async with (
            self._intake.document(_parts(requests), caller) as document,
            aclosing(analysis.run(document)) as steps,
        ):
            async for step in steps:
                yield convert.analysis_to_proto(step)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: _Context
    ) -> pb.ListModelsResponse:
        """Lists the models in catalogue order, and what those that read offer."""
        del request, context
        models = self._engines.models()
        readers = [
            pb.ReadingModel(
                model=model.id,
                languages=self._engines.reading(model.id).languages(model.id),
                max_pages=self._max_pages,
            )
            for model in models
            if Capability.OCR in model.capabilities
        ]
        return pb.ListModelsResponse(
            models=[model_to_proto(model) for model in models], readers=readers
        )

    def _description(self, request: pb.DescribeImageRequest | None) -> DescriptionOrder:
        return convert.description_from_proto(_first(request).config, self._resolve)

    def _question(self, request: pb.AnswerQuestionRequest | None) -> QuestionOrder:
        return convert.question_from_proto(_first(request).config, self._resolve)

    def _extraction(self, request: pb.ExtractTextRequest | None) -> ReadingOrder:
        return convert.extraction_from_proto(
            _first(request).config, self._resolve, max_pages=self._max_pages
        )

    def _analysis(self, request: pb.AnalyzeImageRequest | None) -> AnalysisOrder:
        return convert.analysis_from_proto(
            _first(request).config, self._resolve, max_pages=self._max_pages
        )

    def _resolve(self, name: str, capability: Capability) -> str:
        return self._catalogue.resolve(name, capability, service="img2text").id

    def _check(self, order: AnalysisOrder) -> None:
        """Has the engines refuse what they can't do of an analysis."""
        if order.description is not None:
            with inside("description"):
                engine = self._engines.vision(order.description.model)
                engine.check_description(order.description)
        for place, question in enumerate(order.questions):
            with inside(f"questions[{place}]"):
                self._engines.vision(question.model).check_question(question)
        if order.extraction is not None:
            with inside("extraction"):
                reader = self._engines.reading(order.extraction.model)
                reader.check_reading(order.extraction)


def _first(request: convert.UploadRequest | None) -> convert.UploadRequest:
    """Returns the first message of a call if it holds the config."""
    if request is None or request.WhichOneof("step") != "config":
        raise InvalidArgument("The first message holds the config.", field="config")
    return request


async def _parts(requests: AsyncIterator[convert.UploadRequest]) -> AsyncIterator[UploadPart]:
    async for request in requests:
        yield convert.part_from_proto(request)
