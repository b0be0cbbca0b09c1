"""Who waits for whom: pages of tenants in turn, captions beside pages, health beside both."""

import asyncio
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from seeing_service import (
    CountingEngine,
    Running,
    Serve,
    asked,
    reader,
    tiff,
    vision,
    work_of,
)

from atrium_common.errors import MediaError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.interceptors.metadata import REQUEST_ID
from atrium_common.testing import gateway_metadata, tenant_metadata
from atrium_img2text.reading import Page, PageImage, ReadingOrder


class GatedEngine(CountingEngine):
    """Reads a page when a test lets it.

    Attributes:
        begun: Tenants of the pages that were begun, in order; the width tells them.
        gate: Permits to finish a page.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun: list[int] = []
        self.gate = asyncio.Semaphore(0)

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Waits for the gate, then reads."""
        self.begun.append(page.pixels.shape[1])
        await self.gate.acquire()
        return await super().read(page, order)

    async def until_begun(self, pages: int) -> None:
        """Waits until so many pages were begun."""
        async with asyncio.timeout(10):
            while len(self.begun) < pages:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.001)

    def open(self) -> None:
        """Lets every page through."""
        for _ in range(1000):
            self.gate.release()


async def waiting(service: Running, depth: int) -> None:
    """Waits until so many pages wait for the engine."""
    async with asyncio.timeout(10):
        while service.servicer.queues["fake"].depth < depth:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def gated(*options: Any, slots: int = 2) -> tuple[Any, GatedEngine]:
    entry = reader(slots=slots)
    return entry, GatedEngine([entry])


async def test_a_long_document_delays_another_tenant_by_the_pages_in_flight(serve: Serve) -> None:
    entry, engine = gated()
    async with serve(entry, engines={entry.id: engine}) as service:
        sent = asked("ExtractText", tiff(100, width=100), max_pages=100)
        long = service.call("ExtractText", sent, gateway_metadata(tenant="long"))
        reading = asyncio.create_task(drained(long))
        await engine.until_begun(2)
        short = service.call("ExtractText", asked("ExtractText"), gateway_metadata(tenant="short"))
        second = asyncio.create_task(drained(short))
        await waiting(service, 1)
        engine.open()
        assert (await second)[-1].usage.pages == 1
        assert engine.begun.index(48) <= 2
        answers = await reading
        assert [a.page.number for a in answers if a.HasField("page")] == list(range(1, 101))


async def test_a_document_reads_no_more_pages_ahead_than_there_are_seats(serve: Serve) -> None:
    entry, engine = gated(slots=3)
    async with serve(entry, engines={entry.id: engine}) as service:
        call = service.call("ExtractText", asked("ExtractText", tiff(9)))
        assert (await call.read()).info.pages_to_read == 9
        await engine.until_begun(3)
        assert service.servicer.queues["fake"].depth == 0
        engine.open()
        assert (await drained(call))[-1].usage.pages == 9


async def test_a_document_that_has_begun_goes_on_where_the_queue_is_full(serve: Serve) -> None:
    entry, engine = gated()
    async with serve(entry, engines={entry.id: engine}, max_queue=0) as service:
        other = service.call("ExtractText", asked("ExtractText"), gateway_metadata(tenant="other"))
        await engine.until_begun(1)
        call = service.call("ExtractText", asked("ExtractText", tiff(3)))
        assert (await call.read()).HasField("info")
        error = await service.refusal("ExtractText", asked("ExtractText"))
        assert error.reason == "OVERLOADED"
        engine.open()
        assert (await drained(call))[-1].usage.pages == 3
        assert (await drained(other))[-1].usage.pages == 1


async def test_captions_and_health_do_not_wait_for_pages(serve: Serve) -> None:
    entry, engine = gated()
    sees = vision()
    engines = {entry.id: engine, sees.id: CountingEngine([sees], name="eyes")}
    async with serve(sees, entry, engines=engines) as service:
        pages = [service.call("ExtractText", asked("ExtractText", tiff(9))) for _ in range(4)]
        await engine.until_begun(2)
        assert (await service.ask("DescribeImage"))[-1].captions
        name = service.servicer.service_name
        check = health_pb2_grpc.HealthStub(service.channel).Check
        reply = await check(health_pb2.HealthCheckRequest(service=name))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        call = service.call("AnalyzeImage", asked("AnalyzeImage"))
        results = [(await call.read()).WhichOneof("step") for _ in range(1)]
        while {"caption", "answer"} - set(results):
            results.append((await call.read()).WhichOneof("step"))
        assert "page" not in results
        assert len(engine.begun) == 2
        engine.open()
        for one in (*pages, call):
            assert (await drained(one))[-1].usage.pages
        await service.idle()


class FailingEngine(CountingEngine):
    """Can't read the third page of a document."""

    async def read(self, page: PageImage, order: ReadingOrder) -> Page:
        """Reads, or fails."""
        if page.number == 3:
            raise MediaError("Page 3 took too long to read.", reason="PAGE_TIMEOUT")
        return await super().read(page, order)


@pytest.mark.parametrize("method", ["ExtractText", "AnalyzeImage"])
async def test_what_was_done_before_a_failure_is_delivered_and_charged(
    serve: Serve, method: str
) -> None:
    sees, reads = vision(seconds_per_step=0.01), reader(slots=2, seconds_per_page=0.03)
    engine = FailingEngine([sees, reads])
    async with serve(sees, reads, engines={sees.id: engine, reads.id: engine}) as service:
        metadata = (*tenant_metadata(), (REQUEST_ID, "one"))
        fields = {"questions": [{"question": "word " * 500}]} if method == "AnalyzeImage" else {}
        call = service.call(method, asked(method, tiff(9), **fields), metadata)
        answers: list[Any] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drain(call, answers)
        assert from_rpc_error(caught.value).reason == "PAGE_TIMEOUT"
        assert [a.page.number for a in answers if a.HasField("page")] == [1, 2]
        booking = (await service.admission.closed(1))[0]
        assert booking.outcome == "FAILED"
        assert work_of(booking.usage) == work_of(answers[-1].usage) == engine.work("one")
        await service.idle()


async def drained(call: Any) -> list[Any]:
    """Reads a call to its end."""
    answers: list[Any] = []
    await drain(call, answers)
    return answers


async def drain(call: Any, answers: list[Any]) -> None:
    """Reads a call to its end; `answers` get what comes before an error, too."""
    while (answer := await call.read()) is not grpc.aio.EOF:
        answers.append(answer)
