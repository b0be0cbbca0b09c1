"""What `/api/image-to-text` and `/api/ocr` take and give. No logic."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from atrium_gateway.api.audio_schema import ModelName
from atrium_gateway.api.picture_schema import Seed
from atrium_gateway.upstreams.seeing import Caption, DocumentInfo, Page

MAX_QUESTIONS = 8
_INT32 = 2**31 - 1

Task = Literal["caption", "vqa", "ocr", "all"]
DocumentFormat = Literal["text", "hocr", "tsv", "alto", "pdf"]
Output = Literal["json", "text", "hocr", "tsv", "alto", "pdf"]
Layout = Literal["auto", "single_column", "single_block", "single_line", "single_word", "sparse"]
DOCUMENT_TYPES: Mapping[str, str] = {
    "text": "text/plain; charset=utf-8",
    "hocr": "text/vnd.hocr+html; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "alto": "application/xml; charset=utf-8",
    "pdf": "application/pdf",
}
"""Media types of whole documents."""

QuestionText = Annotated[str, Meta(min_length=1, max_length=4000)]
Questions = Annotated[list[QuestionText], Meta(min_length=1, max_length=MAX_QUESTIONS)]
Prefix = Annotated[str, Meta(min_length=1, max_length=512)]
Language = Annotated[str, Meta(min_length=1, max_length=16)]
"""Which ones a model reads, its service says."""
Positive = Annotated[int, Meta(ge=1, le=_INT32)]


class HistoryTurn(Struct, forbid_unknown_fields=True, kw_only=True):
    """An earlier question about the same picture, and its answer."""

    question: QuestionText
    answer: Annotated[str, Meta(max_length=4000)]


class ReadingOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """What both endpoints take for reading text; ``None`` is not given."""

    languages: Annotated[list[Language], Meta(max_length=8)] | None = None
    layout: Layout | None = None
    correct_orientation: bool | None = None
    first_page: Positive | None = None
    max_pages: Positive | None = None
    resolution: Annotated[int, Meta(ge=72, le=600)] | None = None
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    image_url: Annotated[str, Meta(min_length=1, max_length=8192)] | None = None
    stream: bool = False


class ImageToTextForm(ReadingOptions, kw_only=True):
    """Parameters of `POST /api/image-to-text`, in a form or a query; ``None`` is not given.

    `prompt` is another name of `prefix`.
    """

    task: Task = "caption"
    model: ModelName | None = None
    prefix: Prefix | None = None
    prompt: Prefix | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    question: QuestionText | None = None
    questions: Questions | None = None
    history: Annotated[list[HistoryTurn], Meta(max_length=32)] | None = None
    instructions: Annotated[str, Meta(max_length=4000)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2048)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    beams: Annotated[int, Meta(ge=1, le=10)] | None = None
    seed: Seed | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    ocr_model: ModelName | None = None
    document_format: DocumentFormat | None = None


class ImageToTextJson(ImageToTextForm, kw_only=True):
    """JSON body of `POST /api/image-to-text`; `image` is in base64 or a data URL."""

    image: str | None = None


class OcrForm(ReadingOptions, kw_only=True):
    """Parameters of `POST /api/ocr`, in a form or a query; ``None`` is not given."""

    model: ModelName | None = None
    output: Output | None = None


class OcrJson(OcrForm, kw_only=True):
    """JSON body of `POST /api/ocr`; `image` is in base64 or a data URL."""

    image: str | None = None


class QuestionAnswered(Struct, frozen=True, kw_only=True):
    """An answer; `finish_reason` is ``"stop"``, or ``"length"`` if it was cut."""

    index: int
    question: str
    text: str
    finish_reason: str


class AnswerDelta(Struct, frozen=True, kw_only=True):
    """Event `delta`: more of the answer with this index."""

    index: int
    text: str


class DocumentObject(Struct, frozen=True, kw_only=True):
    """The whole document in the form that was asked for.

    Attributes:
        data: The file in base64.
        size: Bytes of the file.
        sha256: Its digest, hex.
    """

    data: bytes | UnsetType = UNSET
    format: str
    content_type: str
    size: int
    sha256: str


class SeeingUsage(Struct, frozen=True, kw_only=True):
    """What a request consumed; times in seconds, `inference_time` that of the device."""

    model: str
    model_digest: str
    engine: str
    images: int
    pages: int
    input_tokens: int
    output_tokens: int
    queue_time: float
    inference_time: float


class SeeingInfo(Struct, frozen=True, kw_only=True):
    """Event `info`, the first one: who works."""

    task: Task
    model: str | UnsetType = UNSET
    ocr_model: str | UnsetType = UNSET


class SeeingDone(Struct, frozen=True, kw_only=True):
    """Event `done`: what was consumed; by model too, where several models worked."""

    id: str
    usage: SeeingUsage
    usage_by_model: list[SeeingUsage] | UnsetType = UNSET


class SeeingAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `POST /api/image-to-text` and `/api/ocr` as JSON; it has what was asked for.

    Attributes:
        model: That sees.
        ocr_model: That reads.
        info: What the document is.
        captions: The likeliest first.
        answers: In the order of the questions.
        text: Of all pages, divided by form feeds.
        pages: That were read.
        document: In the form that was asked for.
        usage_by_model: What each model consumed, where several worked.
    """

    id: str
    task: Task
    model: str | UnsetType = UNSET
    ocr_model: str | UnsetType = UNSET
    captions: list[Caption] | UnsetType = UNSET
    answers: list[QuestionAnswered] | UnsetType = UNSET
    info: DocumentInfo | UnsetType = UNSET
    text: str | UnsetType = UNSET
    pages: list[Page] | UnsetType = UNSET
    document: DocumentObject | UnsetType = UNSET
    usage: SeeingUsage
    usage_by_model: list[SeeingUsage] | UnsetType = UNSET
