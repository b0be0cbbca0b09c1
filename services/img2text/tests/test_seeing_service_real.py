"""The service with the starter's own models: what it reads is what Tesseract reads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import tesserocr
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from seeing_service import Running, asked, serving

from atrium.img2text.v1 import img2text_pb2 as pb
from atrium_common.catalogue import Catalogue
from atrium_common.testing.pictures import saved
from atrium_common.weights import WeightStore
from atrium_img2text.engines import open_engines
from atrium_img2text.reading import Box, Line, Page, Word
from atrium_img2text.testing.pages import (
    RENDERERS,
    RenderedPage,
    character_error_rate,
    prose,
    share_of_words_found,
)

ROOT = Path(__file__).resolve().parents[3]
STORE = ROOT / ".atrium" / "models"
ENTRIES = Catalogue.load(ROOT / "models" / "starter.yaml").for_service("img2text")
LAYOUTS = {"auto": pb.PAGE_LAYOUT_AUTO, "single_column": pb.PAGE_LAYOUT_SINGLE_COLUMN}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def starter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A service with the starter captioner and Tesseract."""
    router = open_engines(ENTRIES, store=WeightStore(STORE))
    engines = {entry.id: router.engine_of(entry.id) for entry in ENTRIES}
    async with serving(tmp_path_factory.mktemp("spool"), *ENTRIES, engines=engines) as running:
        yield running


async def read(service: Running, truth: RenderedPage) -> Page:
    """Reads a rendered page over the wire."""
    layout = LAYOUTS[truth.layout]
    answers = await service.ask("ExtractText", saved(truth.pixels), layout=layout)
    page = next(answer.page for answer in answers if answer.HasField("page"))
    return Page(
        number=page.number,
        lines=[_line(line) for line in page.lines],
        width=page.width,
        height=page.height,
        rotation=page.rotation,
        languages=page.languages,
    )


def _line(line: pb.TextLine) -> Line:
    words = [Word(word.text, _box(word.box), word.confidence) for word in line.words]
    return Line(text=line.text, box=_box(line.box), confidence=line.confidence, words=words)


def _box(box: pb.BoundingBox) -> Box:
    return Box(box.x, box.y, box.width, box.height)


async def test_pages_that_come_at_once_are_read_with_their_boxes(starter: Running) -> None:
    truths = [RENDERERS[name]() for name in ("invoice", "german", "sideways")]
    pages = await asyncio.gather(*(read(starter, truth) for truth in truths))
    for truth, page in zip(truths, pages, strict=True):
        text = "\n".join(line.text for line in page.lines)
        assert character_error_rate(truth.text, text) <= 0.01, truth.name
        assert share_of_words_found(truth, page) >= 0.95, truth.name
        assert (page.width, page.height) == truth.pixels.shape[1::-1]
        assert abs(page.rotation - truth.rotation) < 0.5, truth.name


async def test_a_page_over_the_wire_is_the_page_that_tesseract_reads(starter: Running) -> None:
    truth = prose()
    entry = next(entry for entry in ENTRIES if entry.id == "tesseract")
    folder = str(WeightStore(STORE).ensure(entry))
    with tesserocr.PyTessBaseAPI(path=folder, lang="eng", psm=tesserocr.PSM.AUTO) as api:
        api.SetImage(Image.fromarray(truth.pixels))
        own = api.GetUTF8Text()
    answers = await starter.ask(
        "ExtractText", saved(truth.pixels), languages=["en"], correct_orientation=False
    )
    page = next(answer.page for answer in answers if answer.HasField("page"))
    assert page.text.split() == own.split()
    assert list(page.languages) == ["en"]
    assert page.script == "Latn"


async def test_health_and_captions_come_before_the_end_of_a_document(starter: Running) -> None:
    first, *others = [Image.fromarray(prose().pixels)] * 20
    data = saved(first, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    document = starter.call("ExtractText", asked("ExtractText", data))
    assert (await document.read()).info.pages == 20
    picture = saved(Image.new("RGB", (64, 64), "white"))
    check = health_pb2_grpc.HealthStub(starter.channel).Check
    name = starter.servicer.service_name
    captions = asyncio.gather(*(starter.ask("DescribeImage", picture) for _ in range(4)))
    replies = [await check(health_pb2.HealthCheckRequest(service=name)) for _ in range(5)]
    assert {reply.status for reply in replies} == {health_pb2.HealthCheckResponse.SERVING}
    assert all(answers[-1].captions for answers in await captions)
    assert starter.servicer.queues["tesseract"].running  # the document is still being read
    document.cancel()
    await starter.idle()


async def test_one_upload_is_described_asked_and_read(starter: Running) -> None:
    answers = await starter.ask(
        "AnalyzeImage",
        saved(prose().pixels),
        questions=[{"question": "how many"}],
        extraction={"languages": ["en"]},
    )
    steps = [answer.WhichOneof("step") for answer in answers]
    assert {"caption", "answer", "info", "page"} <= set(steps)
    parts = {usage.model: usage for usage in answers[-1].usage_by_model}
    assert parts["blip2-shapes-64"].output_tokens > 0
    assert (parts["blip2-shapes-64"].images, parts["tesseract"].pages) == (1, 1)
    assert parts["tesseract"].inference_time.ToTimedelta()
