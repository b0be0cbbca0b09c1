"""A PDF is drawn by a process of its own, in turns, and nothing that it does stays behind."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from documents_kit import assert_idle, limits, processes, written

from atrium_common.context import RequestContext
from atrium_common.errors import DeadlineExceeded, MediaError
from atrium_img2text.documents import DocumentOpener, pdf_process
from atrium_img2text.testing.documents import line_of_text, two_pages
from atrium_img2text.testing.hostile import TIMEOUT, echoes


@pytest.fixture
def opener() -> DocumentOpener:
    return DocumentOpener(limits())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "upload"


async def test_a_caller_who_leaves_ends_the_process(opener: DocumentOpener, file: Path) -> None:
    written(file, echoes())  # drawn for hours
    opened = asyncio.Event()

    async def read() -> None:
        async with opener.open(file) as document:
            opened.set()
            await document.page(1)

    reading = asyncio.create_task(read())
    await opened.wait()
    beats = 0
    for _ in range(20):
        await asyncio.sleep(0.01)
        beats += 1
    assert not reading.done()  # it is drawn, and the loop goes on
    assert beats == 20
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert_idle(opener)


async def test_after_a_crash_the_next_page_is_drawn(opener: DocumentOpener, file: Path) -> None:
    written(file, two_pages())
    async with opener.open(file) as document:
        (process,) = processes()
        process.kill()
        process.wait()
        with pytest.raises(MediaError, match="Page 1"):
            await document.page(1)
        assert (await document.page(2)).pixels.min() < 64
    assert_idle(opener)


async def test_a_page_that_takes_too_long_does_not_take_the_others_with_it(file: Path) -> None:
    written(file, echoes(after=[line_of_text("hello")]))
    opener = DocumentOpener(limits(page_time=timedelta(seconds=2)))
    async with opener.open(file) as document:
        with pytest.raises(MediaError) as refusal:
            await document.page(1)
        assert refusal.value.reason == TIMEOUT
        assert (await document.page(2)).pixels.min() < 64
    assert_idle(opener)


async def test_a_document_that_rests_gives_its_turn_away(tmp_path: Path) -> None:
    files = [written(tmp_path / name, two_pages()) for name in ("a", "b")]
    opener = DocumentOpener(limits(max_workers=1))
    async with opener.open(files[0]) as one, opener.open(files[1]) as other:
        for number in (1, 2):
            for document in (one, other):
                assert (await document.page(number)).pixels.min() < 64
                assert len(processes()) == 1
    assert_idle(opener)


async def test_a_document_that_is_drawn_keeps_its_turn(tmp_path: Path) -> None:
    slow = written(tmp_path / "slow", echoes(after=[line_of_text("hello")]))
    quick = written(tmp_path / "quick", two_pages())
    opener = DocumentOpener(limits(max_workers=1, page_time=timedelta(seconds=2)))
    drawn: list[str] = []

    async def read_quick() -> None:
        async with opener.open(quick) as document:
            await document.page(1)
            drawn.append("quick")

    async with opener.open(slow) as document:
        drawing = asyncio.create_task(document.page(1))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(read_quick())
        with pytest.raises(MediaError):
            await drawing
        drawn.append("slow")
    await waiting
    assert drawn == ["slow", "quick"]
    assert_idle(opener)


async def test_who_waits_for_a_turn_waits_until_the_deadline(tmp_path: Path) -> None:
    slow = written(tmp_path / "slow", echoes())
    quick = written(tmp_path / "quick", two_pages())
    opener = DocumentOpener(limits(max_workers=1))
    hasty = RequestContext("2", tenant="b", deadline=time.monotonic() + 1)
    async with opener.open(slow) as document:
        drawing = asyncio.create_task(document.page(1))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            async with opener.open(quick, caller=hasty):
                pass
        drawing.cancel()
        await asyncio.wait({drawing})
    assert_idle(opener)


async def test_a_process_that_can_not_start_is_a_defect_and_no_refusal(
    opener: DocumentOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_process, "_SCRIPT", tmp_path / "nothing.py")
    file = written(tmp_path / "upload", two_pages())
    with pytest.raises(RuntimeError, match="does not start"):
        async with opener.open(file):
            pass
    assert_idle(opener)
