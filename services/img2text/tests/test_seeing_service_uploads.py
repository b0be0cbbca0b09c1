"""What comes up: broken order, bounds, hostile files. Nothing is charged, all goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from seeing_service import (
    METHODS,
    PICTURE,
    CountingEngine,
    Request,
    Running,
    Serve,
    asked,
    config,
    reader,
    tiff,
    uploaded,
    vision,
)

from atrium_common.images import ImageLimits
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import gateway_metadata, tenant_metadata
from atrium_common.testing.pictures import exif, gradient, refused, saved
from atrium_img2text.documents import DocumentLimits
from atrium_img2text.intake import IntakeLimits
from atrium_img2text.testing.documents import good, many_pages, two_pages
from atrium_img2text.testing.hostile import hostile_pdfs, hostile_pictures

TAKEN = ("gif", "gif-animated", "bmp", "tiff")
"""Of the pictures that other services refuse, those that this one takes."""
PDFS = ("pdf-cut", "pdf-encrypted", "pdf-500-pages", "pdf-huge-page", "pdf-echoes")
"""Of the hostile PDFs, one of each kind; the tests of `documents` have all."""
QUICK = DocumentLimits(page_time=timedelta(seconds=3), max_workers=2)


def end(method: str, **fields: Any) -> Request:
    return METHODS[method][0](end=fields)


def violations(method: str) -> dict[str, tuple[list[Request], str | None, str]]:
    """Returns the messages of broken uploads, the field and the reason of their refusal."""
    request, _ = METHODS[method]
    whole = asked(method)
    digest = whole[-1].end.sha256
    return {
        "nothing": ([], "config", "INVALID_ARGUMENT"),
        "no config": (whole[1:], "config", "INVALID_ARGUMENT"),
        "two configs": ([whole[0], whole[0]], "config", "INVALID_ARGUMENT"),
        "a config in the midst": ([*whole[:2], whole[0]], "config", "INVALID_ARGUMENT"),
        "an empty message": ([whole[0], request()], "step", "INVALID_ARGUMENT"),
        "a chunk after the end": ([*whole, whole[1]], "chunk", "INVALID_ARGUMENT"),
        "two ends": ([*whole, whole[-1]], "chunk", "INVALID_ARGUMENT"),
        "no upload": (whole[:1], "end", "UPLOAD_INCOMPLETE"),
        "no end": (whole[:-1], "end", "UPLOAD_INCOMPLETE"),
        "an empty upload": ([whole[0], *uploaded(method, b"")], "chunk", "UPLOAD_EMPTY"),
        "a wrong size": (
            [*whole[:-1], end(method, sha256=digest, size=-1)],
            "end.size",
            "UPLOAD_INCOMPLETE",
        ),
        "a wrong digest": (
            [*whole[:-1], end(method, sha256=bytes(32), size=len(PICTURE))],
            "end.sha256",
            "UPLOAD_CORRUPT",
        ),
        "no digest": (
            [*whole[:-1], end(method, size=len(PICTURE))],
            "end.sha256",
            "UPLOAD_CORRUPT",
        ),
        "a large chunk": (
            [whole[0], request(chunk={"data": bytes(1024**2 + 1)})],
            "chunk",
            "INVALID_ARGUMENT",
        ),
    }


@pytest.mark.parametrize("name", violations("DescribeImage"))
@pytest.mark.parametrize("method", METHODS)
async def test_every_breach_of_order_is_named(shared: Running, method: str, name: str) -> None:
    requests, field, reason = violations(method)[name]
    begun = len(shared.engine.jobs)
    error = await shared.refusal(method, requests)
    assert (error.field, error.reason) == (field, reason)
    assert len(shared.engine.jobs) == begun
    await shared.idle()


@pytest.mark.parametrize("method", METHODS)
async def test_hostile_pictures_are_refused_and_cost_nothing(shared: Running, method: str) -> None:
    files = {name: data for name, data in refused().items() if name not in TAKEN}
    if method in ("ExtractText", "AnalyzeImage"):
        files.pop("pdf")  # see the hostile PDFs
    files |= {name: case.data for name, case in hostile_pictures().items() if case.data}
    begun, booked = len(shared.engine.jobs), len(shared.admission.bookings)
    for name, data in files.items():
        error = await shared.refusal(method, asked(method, data), tenant_metadata())
        assert error.reason in ("INVALID_MEDIA", "TOO_MANY_PAGES", "UPLOAD_EMPTY"), name
        assert (error.field, len(error.message) < 300) == ("chunk", True), name
    bookings = (await shared.admission.closed(booked + len(files)))[booked:]
    assert {booking.outcome for booking in bookings} == {"REFUNDED"}
    assert len(shared.engine.jobs) == begun
    assert await shared.ask(method)
    await shared.idle()


async def test_hostile_pdfs_are_refused_and_cost_nothing(serve: Serve) -> None:
    before = children()
    hostile = hostile_pdfs()
    cases = {name: hostile[name] for name in PDFS}
    async with serve(limits=IntakeLimits(documents=QUICK)) as service:
        for name, case in cases.items():
            method = "AnalyzeImage" if name == "pdf-encrypted" else "ExtractText"
            error = await service.refusal(method, asked(method, case.data), tenant_metadata())
            assert (error.reason in case.reasons, error.field) == (True, "chunk"), name
        bookings = await service.admission.closed(len(PDFS))
        assert {booking.outcome for booking in bookings} == {"REFUNDED"}
        assert not service.engine.jobs
        assert len(await service.ask("ExtractText", two_pages())) >= 3
        await service.idle()
    assert children() <= before


@pytest.mark.parametrize("name", good())
async def test_every_document_that_is_taken_is_read(shared: Running, name: str) -> None:
    data, pages, content_type = good()[name]
    answers = await shared.ask("ExtractText", data, resolution=72)
    assert (answers[0].info.pages, answers[0].info.content_type) == (pages, content_type)
    assert [a.page.number for a in answers if a.HasField("page")] == list(range(1, pages + 1))


async def test_a_pdf_is_no_picture_but_its_first_page_is_described(shared: Running) -> None:
    error = await shared.refusal("DescribeImage", asked("DescribeImage", two_pages()))
    assert (error.reason, error.field) == ("INVALID_MEDIA", "chunk")
    await shared.ask("AnalyzeImage", two_pages(), extraction={"first_page": 2})
    described = [job for job in shared.engine.jobs[-3:] if not isinstance(job, tuple)]
    assert {job.pixels.shape[2] for job in described} == {3}


async def test_a_picture_is_upright_and_opaque(shared: Running) -> None:
    turned = saved(gradient(), "JPEG", quality=95, exif=exif(6))
    await shared.ask("DescribeImage", turned)
    expected = np.rot90(gradient(), -1).astype(int)
    got = shared.engine.jobs[-1].pixels.astype(int)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 8
    clear = np.zeros((8, 8, 4), np.uint8)
    await shared.ask("DescribeImage", saved(clear))
    assert np.all(shared.engine.jobs[-1].pixels == 255)


async def test_uploads_are_bounded_in_bytes_pixels_and_pages(serve: Serve) -> None:
    images = ImageLimits(max_bytes=100_000, max_pixels=10_000)
    limits = IntakeLimits(documents=DocumentLimits(images=images, max_document_pages=3))
    async with serve(limits=limits) as service:
        for method in METHODS:
            for data in (bytes(100_001), saved(gradient(104, 100))):
                error = await service.refusal(method, asked(method, data))
                assert (error.reason, error.field) == ("INVALID_MEDIA", "chunk")
            assert await service.ask(method, saved(gradient(100, 100)))
        for data in (tiff(4), many_pages(4)):
            error = await service.refusal("ExtractText", asked("ExtractText", data, max_pages=1))
            assert error.reason == "TOO_MANY_PAGES"


async def test_what_all_requests_hold_is_bounded(serve: Serve) -> None:
    # A tenant holds one of these pictures, all tenants two.
    limits = IntakeLimits(max_held_pixels=2 * 48 * 32)
    slow = vision(prefill_seconds=30.0), reader(seconds_per_page=30.0)
    async with serve(*slow, limits=limits) as service:
        first = service.call("DescribeImage", asked("DescribeImage"))
        async with asyncio.timeout(5):
            while not service.intake.held.total:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.002)
        for method in METHODS:
            error = await service.refusal(method, asked(method))
            assert error.reason == "OVERLOADED"
            assert error.retry_after
        other = service.call("ExtractText", asked("ExtractText"), gateway_metadata(tenant="other"))
        assert (await other.read()).HasField("info")
        for call in (first, other):
            call.cancel()
        await service.idle()


async def test_who_sends_nothing_is_sent_away(serve: Serve) -> None:
    whole = asked("ExtractText")

    async def stalls(count: int) -> AsyncIterator[Request]:
        for request in whole[:count]:
            yield request
        await asyncio.sleep(60)

    async with serve(limits=IntakeLimits(idle=timedelta(seconds=0.1))) as service:
        for count in (1, 2, len(whole)):  # before, in and after the upload
            call = service.call("ExtractText", stalls(count), tenant_metadata())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert from_rpc_error(caught.value).reason == "UPLOAD_IDLE"
            call.cancel()
        assert not service.engine.jobs


async def test_a_document_that_waits_for_its_pages_keeps_no_other_from_being_drawn(
    serve: Serve,
) -> None:
    before = children()
    entries = reader("slow-ocr", seconds_per_page=30.0, slots=2), reader()
    engines = {entry.id: CountingEngine([entry], name=entry.id) for entry in entries}
    limits = IntakeLimits(documents=DocumentLimits(max_workers=1))
    async with serve(*entries, engines=engines, limits=limits) as service:
        slow = service.call("ExtractText", asked("ExtractText", two_pages(), model="slow-ocr"))
        assert (await slow.read()).info.pages == 2
        quick = await service.ask("ExtractText", two_pages(), model="fake-ocr")
        assert quick[-1].usage.pages == 2
        slow.cancel()
        await service.idle()
    assert children() <= before


async def test_more_pdfs_than_seats_and_processes_are_all_read(serve: Serve) -> None:
    limits = IntakeLimits(documents=DocumentLimits(max_workers=1))
    async with serve(reader(slots=2), limits=limits) as service:
        calls = (service.ask("ExtractText", many_pages(3), resolution=72) for _ in range(3))
        for answers in await asyncio.gather(*calls):
            assert answers[-1].usage.pages == 3


async def test_a_file_that_can_not_be_written_is_named(serve: Serve, tmp_path: Path) -> None:
    limits = IntakeLimits(directory=tmp_path / "nowhere")
    async with serve() as service:
        service.intake.limits = limits
        error = await service.refusal("DescribeImage", asked("DescribeImage"))
        assert error.reason == "NO_SPACE"


async def test_a_config_alone_is_refused_before_the_upload_is_there(shared: Running) -> None:
    async def waits() -> AsyncIterator[Request]:
        yield config("ExtractText", languages=["jpn"])
        await asyncio.sleep(60)

    call = shared.call("ExtractText", waits())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert from_rpc_error(caught.value).field == "languages[0]"
    call.cancel()


def children() -> set[int]:
    """Returns the processes that were started here and still are."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(number) for task in tasks for number in task.read_text().split()}
