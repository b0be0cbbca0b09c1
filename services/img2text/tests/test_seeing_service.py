"""The service over real sockets with the fake engine: every field, refusals, metering."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from seeing_service import (
    ALL,
    METHODS,
    PICTURE,
    Running,
    Serve,
    asked,
    charged,
    config,
    reader,
    tiff,
    vision,
    work_of,
)

from atrium.img2text.v1 import img2text_pb2 as pb
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import check_service, gateway_metadata, tenant_metadata
from atrium_common.testing.fields import each, leaves
from atrium_common.testing.pictures import saved
from atrium_common.wire import usage_from_proto
from atrium_img2text.reading import DocumentFormat, PageLayout

NAN = float("nan")
Honoured = dict[str, tuple[dict[str, Any], Callable[[Any], bool]]]


async def test_does_what_every_service_promises(service: Running) -> None:
    await check_service(service.channel, service.servicer.service_name)
    reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=gateway_metadata())
    assert [model.id for model in reply.models] == ["fake-vision", "fake-ocr"]
    assert [(one.model, list(one.languages), one.max_pages) for one in reply.readers] == [
        ("fake-ocr", ["deu", "eng", "fra"], 100)
    ]


SAMPLING: Honoured = {
    "sampling.max_tokens": (
        {"sampling": {"max_tokens": 2}},
        lambda job: job.order.sampling.max_tokens == 2,
    ),
    "sampling.temperature": (
        {"sampling": {"temperature": 0.5}},
        lambda job: job.order.sampling.temperature == 0.5,
    ),
    "sampling.top_p": (
        {"sampling": {"top_p": 0.5, "temperature": 1}},
        lambda job: job.order.sampling.top_p == 0.5,
    ),
    "sampling.beams": (
        {"sampling": {"beams": 10}},
        lambda job: job.order.sampling.beams == 10,
    ),
    "sampling.seed": (
        {"sampling": {"seed": -(2**63)}},
        lambda job: job.order.sampling.seed == -(2**63),
    ),
    "sampling.repetition_penalty": (
        {"sampling": {"repetition_penalty": 2.0}},
        lambda job: job.order.sampling.repetition_penalty == 2.0,
    ),
}
HONOURED: dict[str, Honoured] = {
    "DescribeImage": {
        "model": ({"model": "gpt-4o"}, lambda job: job.order.model == "fake-vision"),
        "prefix": ({"prefix": "x" * 512}, lambda job: job.order.prefix == "x" * 512),
        "n": ({"n": 8, "sampling": {"beams": 8}}, lambda job: job.order.n == 8),
        **SAMPLING,
    },
    "AnswerQuestion": {
        "model": ({"model": "fake-vision"}, lambda job: job.order.model == "fake-vision"),
        "question": ({"question": "?" * 4000}, lambda job: job.order.question == "?" * 4000),
        "history.question": (
            {"history": [{"question": "Who?"}] * 32},
            lambda job: [turn.question for turn in job.order.history] == ["Who?"] * 32,
        ),
        "history.answer": (
            {"history": [{"answer": "I."}]},
            lambda job: (job.order.history[0].question, job.order.history[0].answer) == ("", "I."),
        ),
        "instructions": (
            {"instructions": "x" * 4000},
            lambda job: job.order.instructions == "x" * 4000,
        ),
        **SAMPLING,
    },
    "ExtractText": {
        "model": ({"model": "fake-ocr"}, lambda job: job[1].model == "fake-ocr"),
        "languages": (
            {"languages": ["de", "eng"]},
            lambda job: job[1].languages == ("deu", "eng"),
        ),
        "layout": (
            {"layout": pb.PAGE_LAYOUT_SPARSE},
            lambda job: job[1].layout is PageLayout.SPARSE,
        ),
        "correct_orientation": (
            {"correct_orientation": False},
            lambda job: not job[1].correct_orientation,
        ),
        "document_format": (
            {"document_format": pb.DOCUMENT_FORMAT_TSV},
            lambda job: job[1].form is DocumentFormat.TSV,
        ),
        "first_page": ({"first_page": 1}, lambda job: job[1].first_page == 1),
        "max_pages": ({"max_pages": 100}, lambda job: job[1].max_pages == 100),
        "resolution": ({"resolution": 600}, lambda job: job[1].resolution == 600),
        "min_confidence": ({"min_confidence": 1.0}, lambda job: job[1].min_confidence == 1.0),
    },
}
CASES = [(method, field) for method, fields in HONOURED.items() for field in fields]


@pytest.mark.parametrize("method", HONOURED)
def test_no_field_of_a_config_is_forgotten(method: str) -> None:
    assert set(leaves(METHODS[method][1].DESCRIPTOR)) == set(HONOURED[method])
    steps = [field.name for field in METHODS[method][0].DESCRIPTOR.fields]
    assert steps == ["config", "chunk", "end"]


@pytest.mark.parametrize(("method", "field"), CASES)
async def test_every_field_is_honoured(shared: Running, method: str, field: str) -> None:
    fields, check = HONOURED[method][field]
    await shared.ask(method, **fields)
    assert check(shared.engine.jobs[-1])


def test_every_layout_and_form_of_the_wire_has_its_own() -> None:
    for values, kinds in ((pb.PageLayout, PageLayout), (pb.DocumentFormat, DocumentFormat)):
        names = [name.split("_", 2)[2].lower() for name in values.keys()][1:]  # noqa: SIM118
        assert names == [str(kind) for kind in kinds]


SAMPLING_REFUSED = [
    *each("sampling.max_tokens", 0, -1, 2049),
    *each("sampling.temperature", NAN, -0.1, 2.1, float("inf")),
    *each("sampling.top_p", NAN, 0.0, 1.1),
    *each("sampling.beams", 0, -1, 11),
    *each("sampling.repetition_penalty", NAN, 0.0, 2.1),
    ({"sampling": {"top_p": 0.5, "temperature": 0}}, "sampling.top_p"),
    ({"sampling": {"beams": 2, "temperature": 0.5}}, "sampling.beams"),
]
REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "DescribeImage": [
        *each("model", "gpt-9", "fake-ocr"),
        *each("prefix", "x" * 513),
        *each("n", 0, -1, 9),
        ({"n": 3, "sampling": {"beams": 2}}, "n"),
        *SAMPLING_REFUSED,
    ],
    "AnswerQuestion": [
        *each("model", "gpt-9", "fake-ocr"),
        *each("question", "", " \n", "?" * 4001),
        *each("history", [{"question": "Who?"}] * 33),
        *each("instructions", "x" * 4001),
        *SAMPLING_REFUSED,
    ],
    "ExtractText": [
        *each("model", "tesseract-9", "fake-vision", "gpt-4o"),
        *each("languages", ["eng"] * 9),
        ({"languages": ["en", "xx"]}, "languages[1]"),
        ({"languages": ["Deutsch"]}, "languages[0]"),
        ({"languages": ["x" * 10_000]}, "languages[0]"),
        ({"languages": ["eng", "en"]}, "languages[1]"),
        ({"languages": ["eng", "jpn"]}, "languages[1]"),
        *each("layout", -1, 7),
        *each("document_format", -1, 6),
        *each("first_page", 0, -1),
        *each("max_pages", 0, -1, 101, 2**31 - 1),
        *each("resolution", 0, 71, 601),
        *each("min_confidence", NAN, -0.1, 1.1),
    ],
}
IN_ANALYSIS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], str]]] = {
    "DescribeImage": lambda fields: ({"description": fields}, "description"),
    "AnswerQuestion": lambda fields: (
        {"questions": [{"question": "Why?"}, {"question": "How?", **fields}]},
        "questions[1]",
    ),
    "ExtractText": lambda fields: ({"extraction": fields}, "extraction"),
}
REFUSALS = [(method, *case) for method, cases in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("method", "fields", "field"), REFUSALS)
async def test_what_can_not_be_honoured_is_refused_by_name_before_the_upload(
    shared: Running, method: str, fields: dict[str, Any], field: str
) -> None:
    started = len(shared.engine.jobs)
    error = await shared.refusal(method, [config(method, **fields)])
    assert error.field == field
    inside, path = IN_ANALYSIS[method](fields)
    within = await shared.refusal("AnalyzeImage", [config("AnalyzeImage", **inside)])
    assert (within.field, within.reason) == (f"{path}.{field}", error.reason)
    assert len(error.message) < 300
    assert len(shared.engine.jobs) == started


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"description": None, "questions": [], "extraction": None}, "config"),
        ({"questions": [{"question": "Why?"}] * 9}, "questions"),
    ],
)
async def test_an_analysis_without_parts_or_with_too_many_is_refused(
    shared: Running, fields: dict[str, Any], field: str
) -> None:
    error = await shared.refusal("AnalyzeImage", [config("AnalyzeImage", **fields)])
    assert error.field == field


async def test_a_page_that_the_document_has_not_is_refused_and_costs_nothing(
    service: Running,
) -> None:
    sent = asked("ExtractText", tiff(2), first_page=3)
    error = await service.refusal("ExtractText", sent, tenant_metadata())
    assert (error.reason, error.field) == ("INVALID_ARGUMENT", "first_page")
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"
    part = {"description": None, "questions": [], "extraction": {"first_page": 3}}
    error = await service.refusal("AnalyzeImage", asked("AnalyzeImage", tiff(2), **part))
    assert error.field == "extraction.first_page"


async def test_captions_come_after_a_first_message_that_tells_what_was_read(
    shared: Running,
) -> None:
    answers = await shared.ask("DescribeImage", n=2, sampling={"beams": 2})
    assert not answers[0].captions
    assert work_of(answers[0].usage) == (1, 16, 0, 0)
    captions = [caption for answer in answers for caption in answer.captions]
    assert [caption.index for caption in captions] == [0, 1]
    assert captions[0].text.startswith("a picture of 48 x 32 pixels")
    usage = charged(answers)
    assert (usage.model, usage.engine, usage.model_digest) == ("fake-vision", "fake", "ab" * 32)
    assert usage.output_tokens == sum(len(caption.text.split()) for caption in captions)


async def test_an_answer_streams_and_says_why_it_ended(shared: Running) -> None:
    answers = await shared.ask("AnswerQuestion", question="What is it?")
    text = "".join(answer.text for answer in answers)
    assert text.startswith("What is it? - 48 x 32 pixels")
    assert not answers[0].text
    assert [answer.finish_reason for answer in answers[:-1]] == [0] * (len(answers) - 1)
    assert answers[-1].finish_reason == pb.FINISH_REASON_STOP
    assert len(answers) > 5
    cut = await shared.ask("AnswerQuestion", sampling={"max_tokens": 2})
    assert cut[-1].finish_reason == pb.FINISH_REASON_LENGTH
    assert charged(cut).output_tokens == 2


async def test_pages_come_in_order_and_info_says_how_many_are_left(shared: Running) -> None:
    answers = await shared.ask("ExtractText", tiff(5), first_page=2, max_pages=3)
    assert answers[0].info == pb.DocumentInfo(pages=5, pages_to_read=3, content_type="image/tiff")
    assert work_of(answers[0].usage) == (0, 0, 0, 0)
    pages = [answer.page for answer in answers if answer.HasField("page")]
    assert [page.number for page in pages] == [2, 3, 4]
    assert (pages[0].width, pages[0].height) == (48, 32)
    assert pages[0].text.split() == " ".join(line.text for line in pages[0].lines).split()
    usage = charged(answers)
    assert (usage.pages, usage.images, usage.model) == (3, 0, "fake-ocr")


@pytest.mark.parametrize(
    ("form", "head"),
    [
        (pb.DOCUMENT_FORMAT_TEXT, b"Page 1 of"),
        (pb.DOCUMENT_FORMAT_HOCR, b"<?xml"),
        (pb.DOCUMENT_FORMAT_TSV, b"page\t"),
        (pb.DOCUMENT_FORMAT_ALTO, b"<?xml"),
        (pb.DOCUMENT_FORMAT_PDF, b"%PDF-"),
    ],
)
async def test_the_form_follows_the_pages_in_chunks_with_a_digest(
    shared: Running, form: pb.DocumentFormat, head: bytes
) -> None:
    grain = np.random.default_rng(3).integers(0, 256, (300, 300, 3), np.uint8)
    answers = await shared.ask("ExtractText", saved(grain), document_format=form)
    steps = [step for answer in answers if (step := answer.WhichOneof("step"))]
    chunks = [answer.document_chunk.data for answer in answers if answer.HasField("document_chunk")]
    assert steps == ["info", "page", *["document_chunk"] * len(chunks), "document_end"]
    assert {len(chunk) for chunk in chunks[:-1]} <= {64 * 1024}
    assert (len(chunks) > 1) == (form == pb.DOCUMENT_FORMAT_PDF)
    whole, end = b"".join(chunks), answers[-1].document_end
    assert (end.size, end.sha256) == (len(whole), hashlib.sha256(whole).digest())
    assert whole.startswith(head)


async def test_the_form_of_pages_that_were_read_ahead_is_in_their_order(shared: Running) -> None:
    text = pb.DOCUMENT_FORMAT_TEXT
    answers = await shared.ask("ExtractText", tiff(9), document_format=text)
    whole = b"".join(answer.document_chunk.data for answer in answers).decode()
    assert [page.split()[1] for page in whole.split("\f")[:9]] == [str(n) for n in range(1, 10)]


async def test_an_analysis_does_all_and_its_usage_adds_up(shared: Running) -> None:
    answers = await shared.ask(
        "AnalyzeImage",
        tiff(3),
        description={"n": 2, "sampling": {"beams": 2}},
        questions=[{"question": "Why?"}, {"question": "How?"}],
        extraction={"max_pages": 2, "document_format": pb.DOCUMENT_FORMAT_TEXT},
    )
    steps = [answer.WhichOneof("step") for answer in answers]
    assert sorted(filter(None, steps)) == [
        *["answer"] * 2, *["caption"] * 2, "document_chunk", "document_end", "info", *["page"] * 2
    ]  # fmt: skip
    texts = {a.answer.index: a.answer.text for a in answers if a.HasField("answer")}
    assert texts[0].startswith("Why? - 48 x 32")
    assert texts[1].startswith("How? - 48 x 32")
    for answer in answers:
        total = usage_from_proto(answer.usage)
        parts = [usage_from_proto(part) for part in answer.usage_by_model]
        assert total.model == "fake-vision"
        for unit in ("images", "pages", "input_tokens", "output_tokens"):
            assert getattr(total, unit) == sum(getattr(part, unit) for part in parts)
        spent = sum((part.inference_time for part in parts), timedelta())
        assert total.inference_time == spent
    parts = [usage_from_proto(part) for part in answers[-1].usage_by_model]
    assert [(part.model, part.images, part.pages) for part in parts] == [
        ("fake-vision", 1, 0),
        ("fake-ocr", 0, 2),
    ]


async def test_each_model_of_an_analysis_has_an_entry_and_one_pays_the_picture(
    serve: Serve,
) -> None:
    async with serve(vision(), vision("other-vision"), reader()) as service:
        answers = await service.ask(
            "AnalyzeImage",
            description={},
            questions=[{"question": "Why?", "model": "other-vision"}],
        )
        parts = [usage_from_proto(part) for part in answers[-1].usage_by_model]
        assert [part.model for part in parts] == ["fake-vision", "other-vision", "fake-ocr"]
        assert sum(part.images for part in parts) == answers[-1].usage.images == 1


async def test_a_picture_is_decoded_once_for_all_parts(shared: Running) -> None:
    await shared.ask("AnalyzeImage")
    jobs = shared.engine.jobs[-3:]
    pixels = [job[0].pixels if isinstance(job, tuple) else job.pixels for job in jobs]
    assert pixels[0] is pixels[1] is pixels[2]


@pytest.mark.parametrize(
    ("method", "fields", "most"),
    [
        ("DescribeImage", {"n": 2, "sampling": {"max_tokens": 9}}, (1, 1024, 18, 0)),
        ("DescribeImage", {"prefix": "grün"}, (1, 1024 + 5, 64, 0)),
        (
            "AnswerQuestion",
            {"question": "Why?", "history": [{"question": "Who?", "answer": "I."}]},
            (1, 1024 + 10, 256, 0),
        ),
        ("ExtractText", {}, (0, 0, 0, 20)),
        ("ExtractText", {"max_pages": 7}, (0, 0, 0, 7)),
        ("AnalyzeImage", ALL, (1, 2 * 1024 + 4, 64 + 256, 20)),
        (
            "AnalyzeImage",
            {"description": None, "questions": [], "extraction": {"max_pages": 2}},
            (0, 0, 0, 2),
        ),
    ],
)
async def test_a_direct_caller_reserves_a_bound_and_pays_the_work(
    service: Running, method: str, fields: dict[str, Any], most: tuple[int, ...]
) -> None:
    requests = asked(method, **fields)
    answers = [answer async for answer in service.call(method, requests, tenant_metadata())]
    booking = (await service.admission.closed(1))[0]
    assert (booking.outcome, booking.renewals) == ("COMPLETED", 0)
    assert booking.request.capability == "image-to-text"
    assert work_of(booking.bound) == most
    assert work_of(booking.usage) == work_of(answers[-1].usage) != (0, 0, 0, 0)
    models = [usage.model for usage in booking.usage_by_model]
    # A key for some models is held against each of them.
    assert {booking.request.model, *booking.request.other_models} >= set(models)
    assert models == [part.model for part in getattr(answers[-1], "usage_by_model", ())]


@pytest.mark.parametrize("method", METHODS)
async def test_a_model_that_is_not_loaded_is_told_before_the_upload(
    service: Running, method: str
) -> None:
    await service.engine.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.call(method, [config(method)], tenant_metadata()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(caught.value).reason == "MODEL_NOT_READY"
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"


async def test_defaults_are_models_of_this_service(serve: Serve) -> None:
    async with serve(vision("other-vision"), reader("other-ocr"), vision(), reader()) as service:
        answers = await service.ask("AnalyzeImage", PICTURE)
        assert {part.model for part in answers[-1].usage_by_model} == {"other-vision", "other-ocr"}
