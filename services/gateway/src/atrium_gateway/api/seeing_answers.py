"""The answers of `/api/image-to-text` and `/api/ocr` as JSON and as events."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from atrium_common.domain import Usage
from atrium_gateway.api.events import EventStream
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.picture_body import JsonBody
from atrium_gateway.api.seeing import Work
from atrium_gateway.api.seeing_findings import Document, Findings, Found
from atrium_gateway.api.seeing_names import Names
from atrium_gateway.api.seeing_schema import (
    DOCUMENT_TYPES,
    AnswerDelta,
    DocumentObject,
    QuestionAnswered,
    SeeingAnswer,
    SeeingDone,
    SeeingInfo,
    SeeingUsage,
)
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job, Run
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.seeing import Caption, DocumentInfo, Page, SeeingStep

_ENCODER = msgspec.json.Encoder()
_EVENTS: dict[type[Found], str] = {
    DocumentInfo: "opened",
    Caption: "caption",
    AnswerDelta: "delta",
    QuestionAnswered: "answer",
    Page: "page",
}


async def reply(
    exchange: Exchange, principal: Principal, job: Job[SeeingStep], work: Work, names: Names
) -> None:
    """Runs a job and answers with all that it found."""
    findings, found = Findings(work), list[Found]()
    with names.applied():
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                found += findings.add(step)
    findings.check()
    answer = _answer(run, work, findings, found)
    document = next((one for one in found if isinstance(one, Document)), None)
    found.clear()  # the body lets the document go as it leaves
    body = JsonBody()
    encoded = _ENCODER.encode(answer)
    if document is None:
        body.text(encoded)
    else:
        body.text(encoded[:-1] + b',"document":')
        _put_document(body, document, work)
        body.text(b"}")
    headers = limit_headers(run.reservation.limits)
    await exchange.reply_in_pieces(body.pieces(), size=body.size, headers=headers)


async def stream(
    exchange: Exchange, principal: Principal, job: Job[SeeingStep], work: Work, names: Names
) -> None:
    """Runs a job and sends each result when it is ready."""
    findings = Findings(work)
    async with EventStream(exchange, named=True) as events:
        with names.applied():
            async with exchange.gateway.pipeline.run(
                principal, job, request_id=exchange.record.request_id
            ) as run:
                begun = False
                async for step in run:
                    await events.open(run.reservation.limits)
                    if not begun:
                        begun = True
                        await events.send(_ENCODER.encode(_info(work)), event="info")
                    for found in findings.add(step):
                        await _send(events, found, work)
        findings.check()
        done = SeeingDone(
            id=run.reservation.id, usage=_usage(run.usage), usage_by_model=_usages(run)
        )
        await events.send(_ENCODER.encode(done), event="done")
        await events.close()


async def _send(events: EventStream, found: Found, work: Work) -> None:
    if isinstance(found, Document):
        body = JsonBody()
        _put_document(body, found, work)
        await events.send_pieces(body.pieces(), event="document")
    else:
        await events.send(_ENCODER.encode(found), event=_EVENTS[type(found)])


def _put_document(body: JsonBody, document: Document, work: Work) -> None:
    """Appends a `DocumentObject`, with its file."""
    form = work.extraction.document_format if work.extraction else ""
    told = DocumentObject(
        format=form,
        content_type=DOCUMENT_TYPES[form],
        size=len(document.data),
        sha256=document.sha256,
    )
    body.with_file("data", document.data, _ENCODER.encode(told))


def _answer(
    run: Run[SeeingStep], work: Work, findings: Findings, found: Sequence[Found]
) -> SeeingAnswer:
    info = _info(work)
    captions = [one for one in found if isinstance(one, Caption)]
    answers = [one for one in found if isinstance(one, QuestionAnswered)]
    pages = [one for one in found if isinstance(one, Page)]
    reads = work.extraction is not None
    return SeeingAnswer(
        id=run.reservation.id,
        task=work.task,
        model=info.model,
        ocr_model=info.ocr_model,
        info=findings.info or UNSET,
        captions=sorted(captions, key=_index) if work.description else UNSET,
        answers=sorted(answers, key=_index) if work.questions else UNSET,
        text="\f".join(page.text for page in pages) if reads else UNSET,
        pages=pages if reads else UNSET,
        usage=_usage(run.usage),
        usage_by_model=_usages(run),
    )


def _info(work: Work) -> SeeingInfo:
    return SeeingInfo(
        task=work.task,
        model=work.eyes.id if work.eyes else UNSET,
        ocr_model=work.reader.id if work.reader else UNSET,
    )


def _index(found: Caption | QuestionAnswered) -> int:
    return found.index


def _usages(run: Run[SeeingStep]) -> list[SeeingUsage] | UnsetType:
    return [_usage(part) for part in run.usage_by_model] or UNSET


def _usage(usage: Usage) -> SeeingUsage:
    return SeeingUsage(
        model=usage.model,
        model_digest=usage.model_digest,
        engine=usage.engine,
        images=usage.images,
        pages=usage.pages,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        queue_time=usage.queue_time.total_seconds(),
        inference_time=usage.inference_time.total_seconds(),
    )
