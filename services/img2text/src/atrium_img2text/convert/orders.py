"""Configs to orders; ranges are those of the proto's comments.

What only the model can tell (its own defaults, its languages, its window), its engine
refuses; see `engines/base.py`.
"""

from collections.abc import Callable

from atrium.img2text.v1 import img2text_pb2 as pb
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument
from atrium_img2text.convert.checks import above_zero, few, in_range, said, short
from atrium_img2text.domain import (
    MAX_TOKENS,
    AnalysisOrder,
    DescriptionOrder,
    QuestionOrder,
    TextSampling,
    Turn,
)
from atrium_img2text.languages import alpha3
from atrium_img2text.paths import inside
from atrium_img2text.reading import (
    DEFAULT_PAGES,
    DEFAULT_RESOLUTION,
    DocumentFormat,
    PageLayout,
    ReadingOrder,
)

MAX_PREFIX = 512
MAX_CAPTIONS = 8
MAX_QUESTION = 4000
MAX_INSTRUCTIONS = 4000
MAX_TURNS = 32
MAX_QUESTIONS = 8
MAX_LANGUAGES = 8
MAX_PAGE_NUMBER = 2**31 - 1
_RESOLUTIONS = (72, 600)

Resolve = Callable[[str, Capability], str]
"""Catalogue id of the model that a name means; `NotFound` if there is none."""

_LAYOUTS: dict[int, PageLayout] = {
    pb.PAGE_LAYOUT_UNSPECIFIED: PageLayout.AUTO,
    pb.PAGE_LAYOUT_AUTO: PageLayout.AUTO,
    pb.PAGE_LAYOUT_SINGLE_COLUMN: PageLayout.SINGLE_COLUMN,
    pb.PAGE_LAYOUT_SINGLE_BLOCK: PageLayout.SINGLE_BLOCK,
    pb.PAGE_LAYOUT_SINGLE_LINE: PageLayout.SINGLE_LINE,
    pb.PAGE_LAYOUT_SINGLE_WORD: PageLayout.SINGLE_WORD,
    pb.PAGE_LAYOUT_SPARSE: PageLayout.SPARSE,
}
_FORMS: dict[int, DocumentFormat | None] = {
    pb.DOCUMENT_FORMAT_UNSPECIFIED: None,
    pb.DOCUMENT_FORMAT_TEXT: DocumentFormat.TEXT,
    pb.DOCUMENT_FORMAT_HOCR: DocumentFormat.HOCR,
    pb.DOCUMENT_FORMAT_TSV: DocumentFormat.TSV,
    pb.DOCUMENT_FORMAT_ALTO: DocumentFormat.ALTO,
    pb.DOCUMENT_FORMAT_PDF: DocumentFormat.PDF,
}


def description_from_proto(config: pb.DescriptionConfig, resolve: Resolve) -> DescriptionOrder:
    """Reads what captions are asked for.

    Raises:
        InvalidArgument: A field is out of its range; `field` names it.
        NotFound: There is no such model.
    """
    model = resolve(config.model, Capability.IMAGE_TO_TEXT)
    n = in_range("n", config.n, 1, MAX_CAPTIONS) if config.HasField("n") else 1
    sampling = _sampling(config.sampling)
    if not sampling.temperature and sampling.beams is not None and sampling.beams < n:
        raise InvalidArgument("n captions need as many beams, or a temperature.", field="n")
    return DescriptionOrder(
        model=model, prefix=short("prefix", config.prefix, MAX_PREFIX), n=n, sampling=sampling
    )


def question_from_proto(config: pb.QuestionConfig, resolve: Resolve) -> QuestionOrder:
    """Reads a question; raises as `description_from_proto` does."""
    model = resolve(config.model, Capability.IMAGE_TO_TEXT)
    few("history", config.history, MAX_TURNS)
    return QuestionOrder(
        model=model,
        question=said("question", short("question", config.question, MAX_QUESTION)),
        history=tuple(Turn(turn.question, turn.answer) for turn in config.history),
        instructions=short("instructions", config.instructions, MAX_INSTRUCTIONS),
        sampling=_sampling(config.sampling),
    )


def extraction_from_proto(
    config: pb.ExtractionConfig, resolve: Resolve, *, max_pages: int
) -> ReadingOrder:
    """Reads how text is to be read; raises as `description_from_proto` does.

    Args:
        config: As the caller sent it.
        resolve: Finds the model.
        max_pages: Most pages that a request may ask for.
    """
    model = resolve(config.model, Capability.OCR)
    pages = config.max_pages if config.HasField("max_pages") else min(DEFAULT_PAGES, max_pages)
    first = config.first_page if config.HasField("first_page") else 1
    resolution = config.resolution if config.HasField("resolution") else DEFAULT_RESOLUTION
    upright = config.correct_orientation if config.HasField("correct_orientation") else True
    return ReadingOrder(
        model=model,
        languages=_languages(config),
        layout=_layout(config.layout),
        correct_orientation=upright,
        form=_form(config.document_format),
        first_page=in_range("first_page", first, 1, MAX_PAGE_NUMBER),
        max_pages=in_range("max_pages", pages, 1, max_pages),
        resolution=in_range("resolution", resolution, *_RESOLUTIONS),
        min_confidence=in_range("min_confidence", config.min_confidence, 0.0, 1.0),
    )


def analysis_from_proto(
    config: pb.AnalysisConfig, resolve: Resolve, *, max_pages: int
) -> AnalysisOrder:
    """Reads what is to be done with one upload; raises as `description_from_proto` does."""
    described, read = config.HasField("description"), config.HasField("extraction")
    if not (described or read or config.questions):
        raise InvalidArgument("An analysis describes, asks or reads.", field="config")
    few("questions", config.questions, MAX_QUESTIONS)
    description, extraction = None, None
    if described:
        with inside("description"):
            description = description_from_proto(config.description, resolve)
    questions = []
    for place, question in enumerate(config.questions):
        with inside(f"questions[{place}]"):
            questions.append(question_from_proto(question, resolve))
    if read:
        with inside("extraction"):
            extraction = extraction_from_proto(config.extraction, resolve, max_pages=max_pages)
    return AnalysisOrder(description=description, questions=tuple(questions), extraction=extraction)


def _sampling(wire: pb.TextSampling) -> TextSampling:
    sampling = TextSampling(
        max_tokens=in_range("sampling.max_tokens", wire.max_tokens, 1, MAX_TOKENS)
        if wire.HasField("max_tokens")
        else None,
        temperature=in_range("sampling.temperature", wire.temperature, 0.0, 2.0)
        if wire.HasField("temperature")
        else None,
        top_p=above_zero("sampling.top_p", wire.top_p, 1.0) if wire.HasField("top_p") else None,
        beams=in_range("sampling.beams", wire.beams, 1, 10) if wire.HasField("beams") else None,
        seed=wire.seed if wire.HasField("seed") else None,
        repetition_penalty=above_zero("sampling.repetition_penalty", wire.repetition_penalty, 2.0)
        if wire.HasField("repetition_penalty")
        else None,
    )
    if sampling.top_p is not None and sampling.temperature == 0:
        raise InvalidArgument("top_p needs a temperature above 0.", field="sampling.top_p")
    if sampling.beams is not None and sampling.beams > 1 and sampling.temperature:
        raise InvalidArgument("Beams are for a temperature of 0.", field="sampling.beams")
    return sampling


def _languages(config: pb.ExtractionConfig) -> tuple[str, ...]:
    few("languages", config.languages, MAX_LANGUAGES)
    known: list[str] = []
    for place, code in enumerate(config.languages):
        field = f"languages[{place}]"
        language = alpha3(short(field, code, 16))
        if language is None:
            raise InvalidArgument(
                f"{code!r} is no ISO 639-1 or 639-3 code of a language.", field=field
            )
        if language in known:
            raise InvalidArgument(f"The language {code!r} is named twice.", field=field)
        known.append(language)
    return tuple(known)


def _layout(value: int) -> PageLayout:
    layout = _LAYOUTS.get(value)
    if layout is None:
        raise InvalidArgument(f"There is no page layout {value}.", field="layout")
    return layout


def _form(value: int) -> DocumentFormat | None:
    if value not in _FORMS:
        raise InvalidArgument(f"There is no document format {value}.", field="document_format")
    return _FORMS[value]
