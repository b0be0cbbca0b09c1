"""The messages of the img2text service, to and from the gateway's own terms."""

from typing import Final

from atrium.img2text.v1 import img2text_pb2 as pb
from atrium_gateway.upstreams.seeing import (
    Analysis,
    AnalysisStep,
    Answer,
    AnswerPiece,
    Box,
    Caption,
    Description,
    DocumentEnd,
    DocumentInfo,
    Extraction,
    ExtractionStep,
    Line,
    Page,
    Question,
    ReadingModel,
    TextSampling,
    Word,
)

_LAYOUTS: Final = {
    name.removeprefix("PAGE_LAYOUT_").lower(): value for name, value in pb.PageLayout.items()
} | {"": pb.PAGE_LAYOUT_UNSPECIFIED}
_FORMATS: Final = {
    name.removeprefix("DOCUMENT_FORMAT_").lower(): value
    for name, value in pb.DocumentFormat.items()
} | {"": pb.DOCUMENT_FORMAT_UNSPECIFIED}
_FINISH_REASONS: Final = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
}


def description_to_proto(job: Description) -> pb.DescriptionConfig:
    """Writes what captions are asked for; what is ``None`` or empty stays unset."""
    return pb.DescriptionConfig(
        model=job.model, prefix=job.prefix, n=job.n, sampling=_sampling(job.sampling)
    )


def question_to_proto(job: Question) -> pb.QuestionConfig:
    """Writes a question, as `description_to_proto`."""
    return pb.QuestionConfig(
        model=job.model,
        question=job.question,
        history=[
            pb.QuestionTurn(question=turn.question, answer=turn.answer) for turn in job.history
        ],
        instructions=job.instructions,
        sampling=_sampling(job.sampling),
    )


def extraction_to_proto(job: Extraction) -> pb.ExtractionConfig:
    """Writes how text is read, as `description_to_proto`."""
    return pb.ExtractionConfig(
        model=job.model,
        languages=job.languages,
        layout=_LAYOUTS[job.layout],
        correct_orientation=job.correct_orientation,
        document_format=_FORMATS[job.document_format],
        first_page=job.first_page,
        max_pages=job.max_pages,
        resolution=job.resolution,
        min_confidence=job.min_confidence,
    )


def analysis_to_proto(job: Analysis) -> pb.AnalysisConfig:
    """Writes what is done with one upload."""
    return pb.AnalysisConfig(
        description=description_to_proto(job.description) if job.description else None,
        questions=[question_to_proto(question) for question in job.questions],
        extraction=extraction_to_proto(job.extraction) if job.extraction else None,
    )


def captions(message: pb.DescribeImageResponse) -> list[Caption]:
    """Reads the captions that a message brings."""
    return [_caption(caption) for caption in message.captions]


def answer_piece(message: pb.AnswerQuestionResponse) -> AnswerPiece:
    """Reads the text that a message brings."""
    return AnswerPiece(text=message.text, finish_reason=_FINISH_REASONS.get(message.finish_reason))


def extraction_step(message: pb.ExtractTextResponse) -> ExtractionStep:
    """Reads what a message of a reading brings."""
    return _read(message)


def analysis_step(message: pb.AnalyzeImageResponse) -> AnalysisStep:
    """Reads what a message of an analysis brings."""
    match message.WhichOneof("step"):
        case "caption":
            return _caption(message.caption)
        case "answer":
            answer = message.answer
            reason = _FINISH_REASONS.get(answer.finish_reason, "stop")
            return Answer(index=answer.index, text=answer.text, finish_reason=reason)
    return _read(message)


def reading_model(message: pb.ReadingModel) -> ReadingModel:
    """Reads what a model that reads offers."""
    return ReadingModel(
        model=message.model, languages=list(message.languages), max_pages=message.max_pages
    )


def _read(message: pb.ExtractTextResponse | pb.AnalyzeImageResponse) -> ExtractionStep:
    match message.WhichOneof("step"):
        case "info":
            info = message.info
            return DocumentInfo(
                pages=info.pages, pages_to_read=info.pages_to_read, content_type=info.content_type
            )
        case "page":
            return _page(message.page)
        case "document_chunk":
            return message.document_chunk.data
        case "document_end":
            end = message.document_end
            return DocumentEnd(sha256=end.sha256.hex(), size=end.size)
    return None


def _sampling(sampling: TextSampling) -> pb.TextSampling:
    return pb.TextSampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        beams=sampling.beams,
        seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty,
    )


def _caption(caption: pb.Caption) -> Caption:
    return Caption(index=caption.index, text=caption.text, average_logprob=caption.average_logprob)


def _page(page: pb.PageText) -> Page:
    return Page(
        number=page.number,
        text=page.text,
        width=page.width,
        height=page.height,
        rotation=page.rotation,
        script=page.script,
        languages=list(page.languages),
        confidence=page.confidence,
        lines=[_line(line) for line in page.lines],
    )


def _line(line: pb.TextLine) -> Line:
    return Line(
        text=line.text,
        box=_box(line.box),
        confidence=line.confidence,
        block=line.block,
        paragraph=line.paragraph,
        words=[
            Word(text=word.text, box=_box(word.box), confidence=word.confidence)
            for word in line.words
        ],
    )


def _box(box: pb.BoundingBox) -> Box:
    return Box(x=box.x, y=box.y, width=box.width, height=box.height)
