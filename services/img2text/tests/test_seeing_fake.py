"""The fake engine keeps the contract, counts exactly, and shows what was asked for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from vision_contract import VisionContract, answered, described, picture

from atrium_common.catalogue import Catalogue, CatalogueError, ModelEntry
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, MediaError, NotFound, Unavailable
from atrium_img2text.domain import (
    DescriptionJob,
    DescriptionOrder,
    FinishReason,
    QuestionJob,
    QuestionOrder,
    TextSampling,
    Turn,
)
from atrium_img2text.engines.base import ReadingEngine, VisionEngine
from atrium_img2text.engines.fake import FakeEngine
from atrium_img2text.reading import PageImage, PageLayout, ReadingOrder

ENTRIES = Catalogue.load(Path(__file__).parents[3] / "models/fake.yaml").for_service("img2text")
PAGE = PageImage(number=2, pixels=picture(300, 400))


def slow(**options: float) -> FakeEngine:
    """Makes an engine that reads and sees at a set pace."""
    entry = ModelEntry(
        id="slow",
        service="img2text",
        capabilities=(Capability.IMAGE_TO_TEXT, Capability.OCR),
        engine="fake",
        context_length=40,
        options=dict(options),
    )
    return FakeEngine([entry])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(ENTRIES)
    await engine.load()
    yield engine
    await engine.close()


class TestContract(VisionContract):
    model = "fake-vision"

    def running(self, engine: VisionEngine) -> int | None:
        assert isinstance(engine, FakeEngine)
        return engine.running


def test_it_is_both_engines(engine: FakeEngine) -> None:
    assert isinstance(engine, VisionEngine)
    assert isinstance(engine, ReadingEngine)


async def test_a_caption_shows_what_was_asked_for(engine: FakeEngine) -> None:
    pixels = np.full((48, 64, 3), (255, 128, 0), np.uint8)
    sampling = TextSampling(temperature=0.5, seed=3)
    order = DescriptionOrder(model="fake-vision", prefix="a photo of", n=2, sampling=sampling)
    whole = await described(engine, DescriptionJob(order=order, pixels=pixels))
    start = "a picture of 64 x 48 pixels, mean colour #ff8000, after 'a photo of', number"
    assert whole.texts == [f"{start} {n}, seed 3, temperature 0.5" for n in (0, 1)]
    words = sum(len(text.split()) for text in whole.texts)
    assert (whole.counts.input_tokens, whole.counts.output_tokens) == (16 + 3, words)


async def test_an_answer_repeats_the_question_word_by_word(engine: FakeEngine) -> None:
    order = QuestionOrder(
        model="fake-vision",
        question="how many stars",
        history=[Turn("what", "stars")],
        instructions="be brief",
    )
    whole = await answered(engine, QuestionJob(order=order, pixels=np.zeros((8, 8, 3), np.uint8)))
    assert whole.text == (
        "how many stars - 8 x 8 pixels, mean colour #000000, after 1 turns, the last 'stars', "
        "told 'be brief'"
    )
    assert [event.text for event in whole.events[:4]] == ["", "how", " many", " stars"]
    assert whole.finish_reason is FinishReason.STOP
    assert whole.counts.input_tokens == 16 + 2 + 2 + 3


async def test_a_page_says_its_number_and_size(engine: FakeEngine) -> None:
    order = ReadingOrder(model="fake-ocr", languages=("deu", "eng"))
    page = await engine.read(PAGE, order)
    assert page.text == "Page 2 of 400 x 300 pixels\nread upright as auto\n\nin deu eng"
    assert (page.number, page.width, page.height) == (2, 400, 300)
    assert (page.script, page.languages) == ("Latn", ["de", "en"])
    for line in page.lines:
        edges = [word.box.x for word in line.words]
        assert edges == sorted(edges)
        for word in line.words:
            assert 0 <= word.box.x <= word.box.x + word.box.width <= 400
            assert line.box.y <= word.box.y <= word.box.y + word.box.height <= 300
    assert page == await engine.read(PAGE, order)


async def test_reading_honours_its_options(engine: FakeEngine) -> None:
    sure = ReadingOrder(model="fake-ocr", min_confidence=0.8, correct_orientation=False)
    page = await engine.read(PAGE, sure)
    assert page.text == "Page 2 of 400"
    assert min(word.confidence for line in page.lines for word in line.words) >= 0.8
    assert (await engine.read(PAGE, ReadingOrder(model="fake-ocr", min_confidence=1))).text == ""
    word = ReadingOrder(model="fake-ocr", layout=PageLayout.SINGLE_WORD)
    assert (await engine.read(PAGE, word)).text == "Page"
    assert list(engine.languages("fake-ocr")) == ["deu", "eng", "fra"]
    with pytest.raises(InvalidArgument) as caught:
        engine.check_reading(ReadingOrder(model="fake-ocr", languages=("eng", "tlh")))
    assert caught.value.field == "languages[1]"


async def test_a_model_does_what_its_entry_says(engine: FakeEngine) -> None:
    with pytest.raises(NotFound):
        engine.check_description(DescriptionOrder(model="fake-ocr"))
    with pytest.raises(NotFound):
        await engine.read(PAGE, ReadingOrder(model="fake-vision"))


async def test_pages_take_their_time_and_have_a_limit() -> None:
    engine = slow(seconds_per_page=3600, page_limit_seconds=0.01)
    order = ReadingOrder(model="slow")
    engine.check_reading(order)  # its first use loads it
    with pytest.raises(MediaError) as caught:
        await engine.read(PAGE, order)
    assert caught.value.reason == "PAGE_TIMEOUT"
    await engine.close()
    with pytest.raises(Unavailable):
        engine.check_reading(order)
    patient = slow(seconds_per_page=3600, page_limit_seconds=7200)
    await patient.load()
    task = asyncio.create_task(patient.read(PAGE, order))
    while not patient.running:  # noqa: ASYNC110 - it has no event for it
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert (patient.running, patient.steps) == (0, 0)


async def test_texts_take_their_time_and_fit_the_window() -> None:
    engine = slow(prefill_seconds=0.001, seconds_per_step=0.001, tokens_per_step=4)
    await engine.load()
    order = QuestionOrder(model="slow", question="word " * 20)
    whole = await answered(engine, QuestionJob(order=order, pixels=PAGE.pixels))
    assert whole.finish_reason is FinishReason.LENGTH
    assert whole.counts.input_tokens + whole.counts.output_tokens == 40
    assert len(whole.events) == 2
    assert whole.counts.inference == timedelta(seconds=0.002)
    with pytest.raises(InvalidArgument) as caught:
        engine.check_question(QuestionOrder(model="slow", question="word " * 24))
    assert (caught.value.field, caught.value.reason) == ("question", "CONTEXT_LENGTH_EXCEEDED")


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(CatalogueError, match=r"options\.pace"):
        slow(pace=3)
