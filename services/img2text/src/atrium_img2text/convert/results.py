"""What was seen and read, to the wire; every message carries what was consumed so far."""

from typing import Final, TypeVar

from atrium.common.v1 import media_pb2
from atrium.img2text.v1 import img2text_pb2 as pb
from atrium_common.wire import usage_to_proto
from atrium_img2text.domain import AnswerEvent, Caption, DescriptionEvent, FinishReason
from atrium_img2text.reading import Box, Line, Page, Word
from atrium_img2text.steps import (
    AnalysisStep,
    Answered,
    Extracted,
    FormChunk,
    FormEnd,
    Opening,
    Step,
)

_FINISH_REASONS: Final = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}

M = TypeVar("M", pb.ExtractTextResponse, pb.AnalyzeImageResponse)


def description_to_proto(step: Step[DescriptionEvent]) -> pb.DescribeImageResponse:
    """Writes a step of a description."""
    return pb.DescribeImageResponse(
        captions=[_caption(caption) for caption in step.result.captions],
        usage=usage_to_proto(step.usage),
    )


def answer_to_proto(step: Step[AnswerEvent]) -> pb.AnswerQuestionResponse:
    """Writes a step of an answer."""
    return pb.AnswerQuestionResponse(
        text=step.result.text,
        finish_reason=_FINISH_REASONS[step.result.finish_reason],
        usage=usage_to_proto(step.usage),
    )


def extraction_to_proto(step: Step[Extracted | None]) -> pb.ExtractTextResponse:
    """Writes a step of a reading."""
    message = pb.ExtractTextResponse(usage=usage_to_proto(step.usage))
    if step.result is not None:
        _write(step.result, message)
    return message


def analysis_to_proto(step: AnalysisStep) -> pb.AnalyzeImageResponse:
    """Writes a step of an analysis."""
    message = pb.AnalyzeImageResponse(
        usage=usage_to_proto(step.usage),
        usage_by_model=[usage_to_proto(usage) for usage in step.usage_by_model],
    )
    match step.result:
        case None:
            pass
        case Caption():
            message.caption.CopyFrom(_caption(step.result))
        case Answered(index, text, reason):
            answer = pb.QuestionAnswer(
                index=index, text=text, finish_reason=_FINISH_REASONS[reason]
            )
            message.answer.CopyFrom(answer)
        case _:
            _write(step.result, message)
    return message


def _write(result: Extracted, message: M) -> None:
    match result:
        case Opening(info, pages_to_read):
            message.info.CopyFrom(
                pb.DocumentInfo(
                    pages=info.pages, pages_to_read=pages_to_read, content_type=info.content_type
                )
            )
        case Page():
            message.page.CopyFrom(_page(result))
        case FormChunk(data):
            message.document_chunk.CopyFrom(media_pb2.MediaChunk(data=data))
        case FormEnd(sha256, size):
            message.document_end.CopyFrom(media_pb2.MediaEnd(sha256=sha256, size=size))


def _caption(caption: Caption) -> pb.Caption:
    return pb.Caption(
        index=caption.index, text=caption.text, average_logprob=caption.average_logprob
    )


def _page(page: Page) -> pb.PageText:
    return pb.PageText(
        number=page.number,
        text=page.text,
        lines=[_line(line) for line in page.lines],
        width=page.width,
        height=page.height,
        rotation=page.rotation,
        script=page.script,
        languages=page.languages,
        confidence=page.confidence,
    )


def _line(line: Line) -> pb.TextLine:
    return pb.TextLine(
        text=line.text,
        box=_box(line.box),
        confidence=line.confidence,
        words=[_word(word) for word in line.words],
        block=line.block,
        paragraph=line.paragraph,
    )


def _word(word: Word) -> pb.TextWord:
    return pb.TextWord(text=word.text, box=_box(word.box), confidence=word.confidence)


def _box(box: Box) -> pb.BoundingBox:
    return pb.BoundingBox(x=box.x, y=box.y, width=box.width, height=box.height)
