"""Parts of uploads: all four calls bring them in messages of the same shape."""

from typing import TypeVar

from atrium.img2text.v1 import img2text_pb2 as pb
from atrium_common.errors import InvalidArgument
from atrium_common.intake import UploadChunk, UploadEnd, UploadPart

UploadRequest = TypeVar(
    "UploadRequest",
    pb.DescribeImageRequest,
    pb.AnswerQuestionRequest,
    pb.ExtractTextRequest,
    pb.AnalyzeImageRequest,
)
"""A message of a call that brings an upload."""


def part_from_proto(request: UploadRequest) -> UploadPart:
    """Reads a part of the upload.

    Raises:
        InvalidArgument: It is a second config, or empty.
    """
    match request.WhichOneof("step"):
        case "chunk":
            return UploadChunk("", request.chunk.data)
        case "end":
            return UploadEnd("", request.end.sha256, request.end.size)
        case "config":
            raise InvalidArgument("The config comes once.", field="config")
        case _:
            raise InvalidArgument("A message holds a part of the upload.", field="step")
