"""What the img2text service is asked for and gives back, in the gateway's own terms."""

from collections.abc import Sequence

import msgspec


class TextSampling(msgspec.Struct, frozen=True, kw_only=True):
    """How words are chosen; as `atrium.img2text.v1.TextSampling`.

    ``None`` takes the model's own default.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    beams: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Captions of a picture; as `atrium.img2text.v1.DescriptionConfig`.

    Attributes:
        model: Catalogue id.
        prefix: Text that the captions continue; ``""`` for none.
        n: Captions to give; ``None`` for one.
    """

    model: str
    prefix: str = ""
    n: int | None = None
    sampling: TextSampling = TextSampling()


class QuestionTurn(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier question about the same picture, and what was answered."""

    question: str
    answer: str


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question about a picture; as `atrium.img2text.v1.QuestionConfig`.

    Attributes:
        model: Catalogue id.
        history: Earlier turns, oldest first.
        instructions: Of the operator; ``""`` for none.
    """

    model: str
    question: str
    history: Sequence[QuestionTurn] = ()
    instructions: str = ""
    sampling: TextSampling = TextSampling()


class Extraction(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a picture or document; as `atrium.img2text.v1.ExtractionConfig`.

    Layout and form are named as in the proto, in lower case and without their prefixes,
    e.g. ``"single_line"`` and ``"hocr"``; an empty name takes the default, which for the
    form is none. ``None`` takes the service's default.

    Attributes:
        model: Catalogue id.
        languages: ISO 639-1 or 639-3; none detects them.
        document_format: The whole-document form to give as well.
        first_page: From 1.
        resolution: Pixels per inch at which pages of a PDF are drawn.
        min_confidence: Words under it are left out, 0 to 1.
    """

    model: str
    languages: Sequence[str] = ()
    layout: str = ""
    correct_orientation: bool | None = None
    document_format: str = ""
    first_page: int | None = None
    max_pages: int | None = None
    resolution: int | None = None
    min_confidence: float = 0.0


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """Several of these with one upload, at least one; as `atrium.img2text.v1.AnalysisConfig`."""

    description: Description | None = None
    questions: Sequence[Question] = ()
    extraction: Extraction | None = None


class Caption(msgspec.Struct, frozen=True, kw_only=True):
    """A caption; index 0 is the likeliest.

    Attributes:
        average_logprob: Mean log probability of its tokens; 0 where the engine does not tell.
    """

    index: int
    text: str
    average_logprob: float


class AnswerPiece(msgspec.Struct, frozen=True, kw_only=True):
    """Text to append to an answer; empty in the first message.

    Attributes:
        finish_reason: Of the last one: ``"stop"`` or ``"length"``.
    """

    text: str
    finish_reason: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to the question with this index; `finish_reason` as of a piece."""

    index: int
    text: str
    finish_reason: str


class DocumentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A document was opened.

    Attributes:
        pages: It has.
        pages_to_read: That will be read.
        content_type: Media type of the upload, by its content.
    """

    pages: int
    pages_to_read: int
    content_type: str


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A rectangle in pixels of the page as it was uploaded; its origin is upper left."""

    x: int
    y: int
    width: int
    height: int


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A word, where it stands, its confidence 0 to 1."""

    text: str
    box: Box
    confidence: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line: its words in reading order; block and paragraph of the page count from 0."""

    text: str
    box: Box
    confidence: float
    block: int
    paragraph: int
    words: Sequence[Word]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page that was read; as `atrium.img2text.v1.PageText`.

    Attributes:
        number: From 1.
        width: Pixels, as is height.
        rotation: Degrees by which it was turned clockwise to stand upright.
        script: ISO 15924; ``""`` if unknown.
        languages: Read or detected, the likeliest first.
        confidence: 0 to 1.
    """

    number: int
    text: str
    width: int
    height: int
    rotation: float
    script: str
    languages: Sequence[str]
    confidence: float
    lines: Sequence[Line]


class DocumentEnd(msgspec.Struct, frozen=True, kw_only=True):
    """All bytes of the whole-document form were sent; SHA-256 in hex."""

    sha256: str
    size: int


ExtractionStep = DocumentInfo | Page | bytes | DocumentEnd | None
"""One message of a reading; bytes are the next of the whole-document form, ``None`` brings
only usage."""

AnalysisStep = Caption | Answer | ExtractionStep
"""One message of an analysis."""

SeeingStep = list[Caption] | AnswerPiece | AnalysisStep
"""One message of any of them; a list has the captions of a description."""


class ReadingModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a model that reads offers.

    Attributes:
        model: Catalogue id.
        languages: That are installed, ISO 639-3, sorted.
        max_pages: Most that one request may read.
    """

    model: str
    languages: Sequence[str]
    max_pages: int
