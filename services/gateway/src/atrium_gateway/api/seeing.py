"""What `/api/image-to-text` and `/api/ocr` ask of the img2text service, as one metered job."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import msgspec

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability, Usage
from atrium_common.errors import NotFound
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.seeing_bounds import pages_bound, vision_bound
from atrium_gateway.api.seeing_schema import ReadingOptions, Task
from atrium_gateway.deps import Gateway
from atrium_gateway.pipeline import Job
from atrium_gateway.quota.limits import Unit
from atrium_gateway.upstreams.img2text import ANALYZE, ANSWER, DESCRIBE, EXTRACT
from atrium_gateway.upstreams.port import Caller, UpstreamCall
from atrium_gateway.upstreams.seeing import (
    Analysis,
    Description,
    Extraction,
    Question,
    SeeingStep,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done with one picture: at least one of description, questions, extraction.

    Attributes:
        eyes: The model that describes and answers, if one does.
        reader: The model that reads, if one does.
    """

    task: Task
    eyes: ModelEntry | None = None
    reader: ModelEntry | None = None
    description: Description | None = None
    questions: Sequence[Question] = ()
    extraction: Extraction | None = None

    @property
    def model(self) -> str:
        """Id of the model that the request counts for; each model is charged its own part."""
        entry = self.eyes or self.reader
        assert entry is not None  # noqa: S101 - there is something to do
        return entry.id

    @property
    def method(self) -> str:
        """The RPC that does it."""
        single = [DESCRIBE] * (self.description is not None)
        single += [ANSWER] * len(self.questions) + [EXTRACT] * (self.extraction is not None)
        return single[0] if len(single) == 1 else ANALYZE


def resolve(
    exchange: Exchange, name: str | None, capability: Capability, *, field: str = "model"
) -> ModelEntry:
    """Finds the model that a request means in `field`, among those of the img2text service."""
    try:
        entry = exchange.gateway.resolve(name or "", capability, service="img2text")
    except NotFound as err:
        err.field = field
        raise
    exchange.record.model = exchange.record.model or entry.id
    return entry


def seeing_job(gateway: Gateway, work: Work, file: BinaryIO) -> Job[SeeingStep]:
    """Makes the job.

    A document of unknown length whose pages are left open is read as far as a limit of
    pages allows.
    """
    extraction = work.extraction
    pages = pages_bound(extraction, file) if extraction else 0

    async def fit(left: int) -> Job[SeeingStep]:
        assert extraction is not None  # noqa: S101 - else it is not given
        capped = msgspec.structs.replace(extraction, max_pages=left)
        return seeing_job(gateway, replace(work, extraction=capped), file)

    def call(caller: Caller) -> UpstreamCall[SeeingStep]:
        return _call(gateway, work, file, caller)

    seen = Usage(model=work.model, estimated=True)
    if work.eyes is not None:
        seen = vision_bound(work.eyes, work.description, work.questions)
    return Job(
        capability=Capability.IMAGE_TO_TEXT,
        model=work.model,
        method=work.method,
        estimate=replace(seen, pages=pages),
        call=call,
        fit=fit if extraction and extraction.max_pages is None and pages > 1 else None,
        fits=Unit.PAGES,
    )


def _call(gateway: Gateway, work: Work, file: BinaryIO, caller: Caller) -> UpstreamCall[SeeingStep]:
    service = gateway.img2text
    if work.method == DESCRIBE and work.description:
        return service.describe(work.description, file, caller)
    if work.method == ANSWER:
        return service.answer(work.questions[0], file, caller)
    if work.method == EXTRACT and work.extraction:
        return service.extract(work.extraction, file, caller)
    analysis = Analysis(
        description=work.description, questions=work.questions, extraction=work.extraction
    )
    return service.analyze(analysis, file, caller)


def extraction_of(request: ReadingOptions, reader: ModelEntry, form: str | None) -> Extraction:
    """How text is read by what was asked for, and in which whole-document form."""
    return Extraction(
        model=reader.id,
        languages=request.languages or (),
        layout=request.layout or "",
        correct_orientation=request.correct_orientation,
        document_format=form or "",
        first_page=request.first_page,
        max_pages=request.max_pages,
        resolution=request.resolution,
        min_confidence=request.min_confidence or 0.0,
    )
