"""Client of the img2text service: sends a picture or document in pieces, gives what is seen."""

from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO, TypeVar

import grpc.aio

from atrium.common.v1 import media_pb2
from atrium.img2text.v1 import img2text_pb2 as pb
from atrium.img2text.v1 import img2text_pb2_grpc as pb_grpc
from atrium_gateway.upstreams import img2text_convert as convert
from atrium_gateway.upstreams.calls import Credentials, StreamedCall, unmetered
from atrium_gateway.upstreams.port import Caller
from atrium_gateway.upstreams.seeing import (
    Analysis,
    AnalysisStep,
    AnswerPiece,
    Caption,
    Description,
    Extraction,
    ExtractionStep,
    Question,
    ReadingModel,
)
from atrium_gateway.upstreams.uploads import pieces

SERVICE = "atrium.img2text.v1.ImageUnderstandingService"
DESCRIBE = f"/{SERVICE}/DescribeImage"
ANSWER = f"/{SERVICE}/AnswerQuestion"
EXTRACT = f"/{SERVICE}/ExtractText"
ANALYZE = f"/{SERVICE}/AnalyzeImage"
READERS_SECONDS = 5.0
"""Longest time for asking what the models read."""

DescriptionCall = StreamedCall[pb.DescribeImageResponse, list[Caption]]
AnswerCall = StreamedCall[pb.AnswerQuestionResponse, AnswerPiece]
ExtractionCall = StreamedCall[pb.ExtractTextResponse, ExtractionStep]
AnalysisCall = StreamedCall[pb.AnalyzeImageResponse, AnalysisStep]
R = TypeVar(
    "R",
    pb.DescribeImageRequest,
    pb.AnswerQuestionRequest,
    pb.ExtractTextRequest,
    pb.AnalyzeImageRequest,
)


class ImageUnderstandingUpstream:
    """The img2text service, over one channel.

    Every call reads its upload to the end, from where it stands.
    """

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = pb_grpc.ImageUnderstandingServiceStub(channel)
        self._credentials = credentials

    def describe(self, job: Description, image: BinaryIO, caller: Caller) -> DescriptionCall:
        """Starts a description; captions come all at once, after a message without any."""
        call = self._stub.DescribeImage(
            _upload(pb.DescribeImageRequest(config=convert.description_to_proto(job)), image),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, convert.captions)

    def answer(self, job: Question, image: BinaryIO, caller: Caller) -> AnswerCall:
        """Starts an answer; its text comes piece by piece."""
        call = self._stub.AnswerQuestion(
            _upload(pb.AnswerQuestionRequest(config=convert.question_to_proto(job)), image),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, convert.answer_piece)

    def extract(self, job: Extraction, document: BinaryIO, caller: Caller) -> ExtractionCall:
        """Starts reading a picture or document; each page comes when it is read."""
        call = self._stub.ExtractText(
            _upload(pb.ExtractTextRequest(config=convert.extraction_to_proto(job)), document),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, convert.extraction_step)

    def analyze(self, job: Analysis, document: BinaryIO, caller: Caller) -> AnalysisCall:
        """Starts an analysis; each result comes when it is ready."""
        call = self._stub.AnalyzeImage(
            _upload(pb.AnalyzeImageRequest(config=convert.analysis_to_proto(job)), document),
            metadata=self._credentials.metadata(caller),
            timeout=caller.seconds_left(),
        )
        return StreamedCall(call, convert.analysis_step)

    async def readers(self, *, tenant: str, request_id: str) -> Sequence[ReadingModel]:
        """Lists what the models that read offer.

        Raises:
            Unavailable: The service does not answer.
        """
        reply = await unmetered(
            self._stub.ListModels(
                pb.ListModelsRequest(),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=READERS_SECONDS,
            )
        )
        return [convert.reading_model(one) for one in reply.readers]


async def _upload(config: R, file: BinaryIO) -> AsyncIterator[R]:
    yield config
    message = type(config)
    async for piece in pieces(file):
        if isinstance(piece, media_pb2.MediaChunk):
            yield message(chunk=piece)
        else:
            yield message(end=piece)
