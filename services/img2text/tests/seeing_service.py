"""A running service that sees and reads, and what its tests ask of it."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
import pytest
from PIL import Image

from atrium.common.v1 import usage_pb2
from atrium.img2text.v1 import img2text_pb2 as pb
from atrium.img2text.v1.img2text_pb2_grpc import ImageUnderstandingServiceStub
from atrium_common.catalogue import Catalogue, ModelEntry
from atrium_common.chunks import split
from atrium_common.context import current_context, find_context
from atrium_common.domain import Capability, Usage
from atrium_common.errors import AtriumError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import FakeAdmission, gateway_metadata, running_server
from atrium_common.testing.pictures import gradient, saved
from atrium_common.wire import usage_from_proto
from atrium_img2text.domain import AnswerEvent, DescriptionEvent, DescriptionJob, QuestionJob
from atrium_img2text.engines.base import ScheduledEngine
from atrium_img2text.engines.fake import FakeEngine
from atrium_img2text.engines.router import SightRouter
from atrium_img2text.intake import Intake, IntakeLimits
from atrium_img2text.reading import Page, PageImage, ReadingOrder
from atrium_img2text.servicer import ImageUnderstandingServicer

Metadata = tuple[tuple[str, str], ...]
Request = (
    pb.DescribeImageRequest
    | pb.AnswerQuestionRequest
    | pb.ExtractTextRequest
    | pb.AnalyzeImageRequest
)
METHODS: Mapping[str, tuple[type[Request], type[Any]]] = {
    "DescribeImage": (pb.DescribeImageRequest, pb.DescriptionConfig),
    "AnswerQuestion": (pb.AnswerQuestionRequest, pb.QuestionConfig),
    "ExtractText": (pb.ExtractTextRequest, pb.ExtractionConfig),
    "AnalyzeImage": (pb.AnalyzeImageRequest, pb.AnalysisConfig),
}
PICTURE = saved(gradient())
ALL: dict[str, Any] = {"description": {}, "questions": [{"question": "Why?"}], "extraction": {}}
"""An analysis that does everything."""
NEEDED: dict[str, dict[str, Any]] = {"AnswerQuestion": {"question": "Why?"}, "AnalyzeImage": ALL}
"""Fields that a method can't do without."""


def tiff(pages: int, width: int = 48, height: int = 32) -> bytes:
    """Makes a TIFF of several pages."""
    first, *others = (Image.fromarray(gradient(width, height)) for _ in range(pages))
    return saved(first, "TIFF", save_all=True, append_images=others)


def asked(method: str, data: bytes = PICTURE, **fields: Any) -> list[Request]:
    """Returns the messages of a call; of a picture, if none is given."""
    return [config(method, **fields), *uploaded(method, data)]


def config(method: str, **fields: Any) -> Request:
    """Returns the first message; what the method can't do without is given."""
    request, kind = METHODS[method]
    return request(config=kind(**(NEEDED.get(method, {}) | fields)))


def uploaded(method: str, data: bytes) -> list[Request]:
    """Returns the messages of an upload."""
    request, _ = METHODS[method]
    end = {"sha256": hashlib.sha256(data).digest(), "size": len(data)}
    return [*(request(chunk={"data": piece}) for piece in split(data)), request(end=end)]


class CountingEngine(FakeEngine):
    """Counts what each request must pay, and remembers what it was asked.

    Attributes:
        jobs: Every job and every page that was begun, in order.
        tokens: Read and written, by request id and job.
        pages: Read, by request id.
        order: Request ids of the pages, in the order in which they were read.
    """

    def __init__(self, *args: Any, name: str = "fake", **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name
        self.jobs: list[Any] = []
        self.tokens: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
        self.pages: dict[str, int] = defaultdict(int)
        self.order: list[str] = []

    async def describe(self, job: DescriptionJob) -> AsyncGenerator[DescriptionEvent, None]:
        """Describes and counts."""
        self.jobs.append(job)
        async with aclosing(super().describe(job)) as events:
            async for event in events:
                self._count(job, event)
                yield event

    async def answer(self, job: QuestionJob) -> AsyncGenerator[AnswerEvent, None]:
        """Answers and counts."""
        self.jobs.append(job)
        async with aclosing(super().answer(job)) as events:
            async for event in events:
                self._count(job, event)
                yield event

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Reads and counts."""
        self.jobs.append((page, order))
        read = await super().read(page, order)
        self.pages[current_context().request_id] += 1
        self.order.append(current_context().request_id)
        return read

    def _count(self, job: object, event: DescriptionEvent | AnswerEvent) -> None:
        counts = event.counts
        request = context.request_id if (context := find_context()) else ""
        self.tokens[request][id(job)] = (counts.input_tokens, counts.output_tokens)

    def work(self, request: str) -> tuple[int, int, int, int]:
        """Returns the images, tokens read, tokens written and pages of a request."""
        counted = self.tokens[request].values()
        read, written = sum(c[0] for c in counted), sum(c[1] for c in counted)
        return min(1, len(counted)), read, written, self.pages[request]


def work_of(usage: Usage | usage_pb2.Usage | None) -> tuple[int, int, int, int]:
    """Returns what `CountingEngine.work` does, of what was charged."""
    if usage is None:
        return 0, 0, 0, 0
    return usage.images, usage.input_tokens, usage.output_tokens, usage.pages


@dataclass(frozen=True, kw_only=True)
class Running:
    """The service under test."""

    channel: grpc.aio.Channel
    stub: ImageUnderstandingServiceStub
    engines: Sequence[ScheduledEngine]
    servicer: ImageUnderstandingServicer
    intake: Intake
    admission: FakeAdmission
    spool: Path

    @property
    def engine(self) -> CountingEngine:
        """The first of the engines."""
        assert isinstance(self.engines[0], CountingEngine)
        return self.engines[0]

    def call(
        self,
        method: str,
        requests: Iterable[Request] | AsyncIterator[Request],
        metadata: Metadata | None = None,
    ) -> Any:
        """Starts a call."""
        stub = getattr(self.stub, method)
        sent = requests if isinstance(requests, AsyncIterator) else iter(requests)
        return stub(sent, metadata=metadata or gateway_metadata())

    async def ask(self, method: str, data: bytes = PICTURE, **fields: Any) -> list[Any]:
        """Calls to the end."""
        return [answer async for answer in self.call(method, asked(method, data, **fields))]

    async def refusal(
        self, method: str, requests: Iterable[Request], metadata: Metadata | None = None
    ) -> AtriumError:
        """Returns what refuses a call before any answer."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(self.call(method, requests, metadata)))
        return from_rpc_error(caught.value)

    async def idle(self) -> None:
        """Waits, a few seconds at most, until nothing is held."""
        async with asyncio.timeout(10):
            while not self.is_idle:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.002)

    @property
    def is_idle(self) -> bool:
        """True if no seat, upload, picture or page is held or waited for."""
        seats = any(queue.running or queue.depth for queue in self.servicer.queues.values())
        held = any(self.spool.iterdir()) or self.intake.held.total
        return not (seats or held or any(getattr(one, "running", 0) for one in self.engines))


def vision(identifier: str = "fake-vision", **options: Any) -> ModelEntry:
    """Returns a catalogue entry of a fake model that sees; the name gpt-4o is the first's."""
    aliases = ("gpt-4o",) if identifier == "fake-vision" else ()
    return _entry(identifier, Capability.IMAGE_TO_TEXT, aliases, options)


def reader(identifier: str = "fake-ocr", **options: Any) -> ModelEntry:
    """Returns a catalogue entry of a fake model that reads."""
    return _entry(identifier, Capability.OCR, (), options)


def _entry(
    identifier: str, capability: Capability, aliases: tuple[str, ...], options: dict[str, Any]
) -> ModelEntry:
    return ModelEntry(
        id=identifier,
        service="img2text",
        capabilities=(capability,),
        engine="fake",
        aliases=aliases,
        digest="ab" * 32,
        options=options,
    )


class Serve(Protocol):
    """Starts a service whose uploads lie in a folder of its own; see `serving`."""

    def __call__(
        self, *entries: ModelEntry, **options: Any
    ) -> AbstractAsyncContextManager[Running]:
        """Serves until the block ends."""
        ...


@asynccontextmanager
async def serving(
    spool: Path,
    *entries: ModelEntry,
    engines: Mapping[str, ScheduledEngine] | None = None,
    limits: IntakeLimits | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """Serves until the block ends; then nothing may be held.

    Args:
        spool: Folder for uploads.
        entries: Models; without them one that sees and one that reads.
        engines: The engine of each model; without them one fake engine for all.
        limits: What uploads are taken.
        options: Of the servicer.
    """
    models = entries or (vision(), reader())
    if engines is None:
        engines = dict.fromkeys((entry.id for entry in models), CountingEngine(models))
    by_name = {engine.name: engine for engine in engines.values()}
    router = SightRouter(by_name, {entry.id: engines[entry.id].name for entry in models})
    intake = Intake(replace(limits or IntakeLimits(), directory=spool))
    servicer = ImageUnderstandingServicer(
        router, Catalogue(models=tuple(models)), intake=intake, **options
    )
    async with (
        FakeAdmission() as admission,
        running_server(servicer, router, admission=admission) as (channel, _),
    ):
        running = Running(
            channel=channel,
            stub=ImageUnderstandingServiceStub(channel),
            engines=tuple(by_name.values()),
            servicer=servicer,
            intake=intake,
            admission=admission,
            spool=spool,
        )
        yield running
    assert running.is_idle


def charged(answers: Sequence[Any]) -> Usage:
    """Returns what the last message of a call says that it consumed."""
    return usage_from_proto(answers[-1].usage)
