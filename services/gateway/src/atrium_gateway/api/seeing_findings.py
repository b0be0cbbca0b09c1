"""What comes of a picture, put together of the service's messages; holds nothing finished."""

from dataclasses import dataclass, field

from atrium_common.errors import Unavailable
from atrium_gateway.api.seeing import Work
from atrium_gateway.api.seeing_schema import AnswerDelta, QuestionAnswered
from atrium_gateway.upstreams.seeing import (
    Answer,
    AnswerPiece,
    Caption,
    DocumentEnd,
    DocumentInfo,
    Page,
    SeeingStep,
)


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A whole document in the form that was asked for, and its SHA-256 in hex."""

    data: bytearray
    sha256: str


Found = DocumentInfo | Caption | AnswerDelta | QuestionAnswered | Page | Document


@dataclass(slots=True)
class Findings:
    """Takes the messages of one answer in their order; gives what each of them finished.

    Attributes:
        work: What was asked for.
        keeps_document: False where its bytes are sent on as they come.
        info: Of the document, once it was opened.
    """

    work: Work
    keeps_document: bool = True
    info: DocumentInfo | None = None
    captions: int = 0
    answers: int = 0
    pages: int = 0
    documents: int = 0
    _answer: str = ""
    _size: int = 0
    _data: bytearray = field(default_factory=bytearray)

    def add(self, step: SeeingStep) -> list[Found]:
        """Takes the next message.

        Raises:
            Unavailable: The service's messages do not fit together.
        """
        match step:
            case bytes():
                self._size += len(step)
                if self.keeps_document:
                    self._data += step
            case list():
                self.captions += len(step)
                return list(step)
            case AnswerPiece():
                return self._more(step)
            case Answer():
                return [self._answered(step.index, step.text, step.finish_reason)]
            case DocumentEnd():
                return [self._closed(step)]
            case Caption():
                self.captions += 1
                return [step]
            case DocumentInfo():
                self.info = step
                return [step]
            case Page():
                self.pages += 1
                return [step]
        return []

    def check(self) -> None:
        """Sees, after the last message, that everything came.

        Raises:
            Unavailable: The service ended before.
        """
        description, extraction = self.work.description, self.work.extraction
        whole = self.answers == len(self.work.questions)
        if description is not None:
            whole = whole and self.captions == (description.n or 1)
        if extraction is not None:
            asked = int(bool(extraction.document_format))
            read = self.info is not None and self.pages == self.info.pages_to_read
            whole = whole and read and self.documents == asked
        if not whole:
            raise Unavailable("The service ended before its answer was complete.")

    def _more(self, piece: AnswerPiece) -> list[Found]:
        found: list[Found] = []
        if piece.text:
            self._answer += piece.text
            found.append(AnswerDelta(index=0, text=piece.text))
        if piece.finish_reason:
            found.append(self._answered(0, self._answer, piece.finish_reason))
        return found

    def _answered(self, index: int, text: str, finish_reason: str) -> QuestionAnswered:
        if not 0 <= index < len(self.work.questions):
            raise Unavailable("The service answered what was not asked.")
        self.answers += 1
        question = self.work.questions[index].question
        return QuestionAnswered(
            index=index, question=question, text=text, finish_reason=finish_reason
        )

    def _closed(self, end: DocumentEnd) -> Document:
        data, self._data = self._data, bytearray()
        if self._size != end.size:
            raise Unavailable("The document arrived incomplete.")
        self.documents += 1
        return Document(data, end.sha256)
