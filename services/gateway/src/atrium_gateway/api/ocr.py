"""`POST /api/ocr`: the text of a picture or document, as JSON, events, or a file of its own."""

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.api.exchange import JSON, Exchange
from atrium_gateway.api.file_body import FileBody
from atrium_gateway.api.seeing import Work, extraction_of, resolve, seeing_job
from atrium_gateway.api.seeing_answers import reply, stream
from atrium_gateway.api.seeing_findings import Findings
from atrium_gateway.api.seeing_names import Names
from atrium_gateway.api.seeing_schema import DOCUMENT_TYPES, OcrForm, OcrJson
from atrium_gateway.api.seeing_uploads import received
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job, Run
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.seeing import DocumentEnd, SeeingStep

_JSON = "json"
_BY_TYPE = {kind.partition(";")[0]: form for form, kind in DOCUMENT_TYPES.items()} | {
    "text/html": "hocr",
    "text/xml": "alto",
}
"""Forms by the types that `Accept` may name."""


async def create_ocr(exchange: Exchange) -> None:
    """Reads text: as JSON, as a file in one of the whole-document forms, or as events."""
    principal = await exchange.authenticate()
    async with received(exchange, OcrForm, OcrJson) as (picture, request):
        form = _output(exchange, request)
        reader = resolve(exchange, request.model, Capability.OCR)
        extraction = extraction_of(request, reader, None if form == _JSON else form)
        work = Work(task="ocr", reader=reader, extraction=extraction)
        names = Names(picture.name, {"document_format": "output"})
        async with exchange.until_disconnect():
            job = seeing_job(exchange.gateway, work, await picture.opened(exchange))
            if form != _JSON:
                await _send_file(exchange, principal, job, work, names)
            else:
                answer = stream if request.stream else reply
                await answer(exchange, principal, job, work, names)


def _output(exchange: Exchange, request: OcrForm) -> str:
    """In which form is answered: by `output`, else by what `Accept` asks for first."""
    kinds = exchange.accepted()
    by_accept = next((_BY_TYPE[kind] for kind in kinds if kind in _BY_TYPE), _JSON)
    form = request.output or (_JSON if JSON in kinds or request.stream else by_accept)
    if request.stream and form != _JSON:
        raise InvalidArgument("Only JSON is streamed: leave 'output' out.", field="stream")
    return form


async def _send_file(
    exchange: Exchange,
    principal: Principal,
    job: Job[SeeingStep],
    work: Work,
    names: Names,
) -> None:
    """Answers with the document itself, whose bytes leave as they come: after the last page."""
    findings = Findings(work, keeps_document=False)
    async with FileBody(exchange) as body:
        with names.applied():
            async with exchange.gateway.pipeline.run(
                principal, job, request_id=exchange.record.request_id
            ) as run:
                async for step in run:
                    if isinstance(step, bytes | DocumentEnd) and not body.is_open:
                        await _open(body, run, findings, work)
                    if isinstance(step, bytes):
                        await body.send(step)
                    findings.add(step)
        findings.check()
        await body.close()


async def _open(body: FileBody, run: Run[SeeingStep], findings: Findings, work: Work) -> None:
    if findings.info is None or not work.extraction:
        raise Unavailable("The service gave a document without saying what it is.")
    headers = {
        "x-atrium-id": run.reservation.id,
        "x-atrium-model": work.model,
        "x-atrium-pages": str(findings.pages),
        "x-atrium-document-pages": str(findings.info.pages),
        **limit_headers(run.reservation.limits),
    }
    content_type = DOCUMENT_TYPES[work.extraction.document_format]
    await body.open(content_type=content_type, headers=headers)
