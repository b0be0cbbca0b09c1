"""What is put together of the service's messages, and whose names its errors get."""

import pytest

from atrium_common.errors import InvalidArgument, MediaError, TooLarge, Unavailable
from atrium_gateway.api.seeing import Work
from atrium_gateway.api.seeing_findings import Document, Findings
from atrium_gateway.api.seeing_names import Names
from atrium_gateway.api.seeing_schema import AnswerDelta
from atrium_gateway.upstreams.seeing import (
    Answer,
    AnswerPiece,
    Caption,
    Description,
    DocumentEnd,
    DocumentInfo,
    Extraction,
    Page,
    Question,
)

INFO = DocumentInfo(pages=9, pages_to_read=2, content_type="application/pdf")
EVERYTHING = Work(
    task="all",
    description=Description(model="eyes"),
    questions=[Question(model="eyes", question="why?")],
    extraction=Extraction(model="reader", document_format="pdf"),
)


def page(number):
    return Page(
        number=number,
        text="",
        width=1,
        height=1,
        rotation=0.0,
        script="",
        languages=[],
        confidence=0.0,
        lines=[],
    )


def steps():
    caption = Caption(index=0, text="a star", average_logprob=0.0)
    answer = Answer(index=0, text="because", finish_reason="stop")
    end = DocumentEnd(sha256="ab", size=4)
    return [INFO, None, caption, page(1), answer, page(2), b"ab", b"cd", end]


def taken(work, given):
    findings = Findings(work)
    found = [one for step in given for one in findings.add(step)]
    findings.check()
    return found


def test_each_result_is_given_once_and_the_document_whole():
    *_, document = found = taken(EVERYTHING, steps())
    assert [type(one).__name__ for one in found] == [
        "DocumentInfo",
        "Caption",
        "Page",
        "QuestionAnswered",
        "Page",
        "Document",
    ]
    assert isinstance(document, Document)
    assert (bytes(document.data), document.sha256) == (b"abcd", "ab")


@pytest.mark.parametrize("missing", [0, 2, 3, 4, 5, 6, 8])
def test_an_answer_that_lacks_something_is_none(missing):
    given = steps()
    del given[missing]
    with pytest.raises(Unavailable):
        taken(EVERYTHING, given)


def test_an_answer_to_no_question_is_none():
    with pytest.raises(Unavailable):
        taken(EVERYTHING, [Answer(index=1, text="", finish_reason="stop")])


def test_pieces_of_an_answer_are_told_and_joined():
    work = Work(task="vqa", questions=[Question(model="eyes", question="why?")])
    pieces = [AnswerPiece(text=text) for text in ("", "be", "cause")]
    found = taken(work, [*pieces, AnswerPiece(text="", finish_reason="length")])
    assert found[:2] == [AnswerDelta(index=0, text="be"), AnswerDelta(index=0, text="cause")]
    assert (found[2].question, found[2].text) == ("why?", "because")
    assert found[2].finish_reason == "length"
    with pytest.raises(Unavailable):
        taken(work, pieces)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("sampling.beams", "beams"),
        ("description.sampling.beams", "beams"),
        ("questions[1].sampling.top_p", "top_p"),
        ("questions[1].question", "questions[1]"),
        ("question", "questions[0]"),
        ("questions[1].history[2].question", "history[2].question"),
        ("extraction.languages[1]", "languages[1]"),
        ("extraction.model", "ocr_model"),
        ("description.model", "model"),
        ("model", "model"),
        ("questions", "questions"),
        ("config.prefix", "prompt"),
        ("end", "file"),
        ("chunk", "file"),
        (None, None),
    ],
)
def test_errors_get_the_names_that_the_request_used(told, name):
    names = Names(
        "file",
        {"extraction.model": "ocr_model", "prefix": "prompt", "question": "questions[{}]"},
    )
    assert names.of(InvalidArgument("x", field=told)) == name
    with pytest.raises(InvalidArgument) as raised, names.applied():
        raise InvalidArgument("x", field=told)
    assert raised.value.field == name


def test_errors_of_the_upload_name_where_it_came_in():
    names = Names("image_url", {})
    for error in (MediaError("x"), TooLarge("x", field="chunk")):
        assert names.of(error) == "image_url"
