"""What batching does for captions, what the doors cost pages, and both at once.

transformers' own `generate`, one picture after the other, takes turns with the service's
engine in process and with the whole suite; tesserocr alone with pages through REST.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from atrium_diffusion.testing.shapes import PLAIN_SCENES, render, seeded
from atrium_img2text.testing.pages import prose
from tests.bench.models import ONE_THREAD
from tests.bench.pictures import QUIET
from tests.bench.report import Worker, percentile, spread, table, worker
from tests.kit.suite import MODELS, ROOT, Suite, running_suite

CAPTIONER, READER = "blip2-shapes-64", "tesseract"
ROUNDS = 5
PICTURES = 48
CALLERS = (1, 4, 8, 16)
PAGES = 8
READERS = (1, 2, 4)

Side = Callable[[int], float]
"""Takes the number of callers; the seconds that they took."""


def run(state: Path) -> None:
    """Prints the tables."""
    environment = {**os.environ, **ONE_THREAD, **QUIET}
    arguments = (str(ROOT / "models/starter.yaml"), str(MODELS))
    with (
        tempfile.TemporaryDirectory(prefix="atrium-bench-pictures-") as folder,
        running_suite(state, environment=ONE_THREAD, services="img2text") as suite,
    ):
        pictures, page = _files(Path(folder))
        _captions(suite, arguments, environment, pictures)
        _pages(suite, arguments, environment, page)
        asyncio.run(_together(suite, contents(pictures), page.read_bytes()))


def _files(folder: Path) -> tuple[list[Path], Path]:
    pictures = []
    for number, scene in enumerate(list(PLAIN_SCENES.values())[:PICTURES]):
        path = folder / f"{number}.png"
        render(scene, seeded(number)).save(path)
        pictures.append(path)
    page = folder / "page.png"
    Image.fromarray(prose().pixels).save(page)
    return pictures, page


def contents(files: Sequence[Path]) -> list[bytes]:
    """What is in the files."""
    return [file.read_bytes() for file in files]


def _captions(
    suite: Suite, arguments: Sequence[str], environment: dict[str, str], pictures: list[Path]
) -> None:
    names = [str(path) for path in pictures]

    def asks(side: Worker) -> Side:
        return lambda callers: float(side.ask({"pictures": names, "callers": callers})["seconds"])

    with (
        worker(
            *("transformers", *arguments, CAPTIONER), environment=environment, script="looking.py"
        ) as alone,
        worker(
            *("engine", *arguments, CAPTIONER), environment=environment, script="looking.py"
        ) as engine,
    ):
        sides: dict[str, Side] = {
            "transformers, one by one": asks(alone),
            "engine in process": asks(engine),
            "through REST": lambda callers: asyncio.run(
                _through(suite, "/api/image-to-text", contents(pictures), callers)
            ),
        }
        rows = []
        for callers in CALLERS:
            rates = _rates(sides, callers, PICTURES)
            one_by_one = median(rates["transformers, one by one"])
            rows.append(
                (
                    str(callers),
                    *(spread(rate, "{:.0f}") for rate in rates.values()),
                    *(f"{median(rates[name]) / one_by_one:.2f}" for name in list(sides)[1:]),
                )
            )
    table(
        f"{CAPTIONER}: captions/s of {PICTURES} pictures, one thread (goal at 8 callers: 1.8"
        " times the rate of one by one)",
        ("callers", *sides, "engine / one by one", "REST / one by one"),
        rows,
    )


def _pages(suite: Suite, arguments: Sequence[str], environment: dict[str, str], page: Path) -> None:
    names = [str(page)] * PAGES
    fields = {"languages": "en", "correct_orientation": "false"}
    with worker(
        *("tesserocr", *arguments, READER), environment=environment, script="looking.py"
    ) as alone:
        sides: dict[str, Side] = {
            "tesserocr alone": lambda callers: float(
                alone.ask({"pages": names, "callers": callers})["seconds"]
            ),
            "through REST, as it is": lambda callers: asyncio.run(
                _through(suite, "/api/ocr", contents([page] * PAGES), callers, fields)
            ),
            "through REST, language and turn found": lambda callers: asyncio.run(
                _through(suite, "/api/ocr", contents([page] * PAGES), callers)
            ),
        }
        rows = []
        for callers in READERS:
            rates = _rates(sides, callers, PAGES)
            rows.append((str(callers), *(spread(rate, "{:.2f}") for rate in rates.values())))
    table(
        f"{READER}: pages/s of English prose at 14 px, a thread for each page that is read",
        ("callers", *sides),
        rows,
    )


def _rates(sides: dict[str, Side], callers: int, pieces: int) -> dict[str, list[float]]:
    """Pieces per second; the sides take turns, and the first round warms them up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, side in sides.items():
            found[name].append(pieces / side(callers))
    return {name: rates[1:] for name, rates in found.items()}


async def _through(
    suite: Suite,
    path: str,
    files: Sequence[bytes],
    callers: int,
    fields: dict[str, str] | None = None,
) -> float:
    headers = {"Authorization": f"Bearer {suite.key}"}
    async with httpx.AsyncClient(base_url=suite.url, headers=headers, timeout=300) as client:
        await client.get("/health/live")
        began = time.perf_counter()

        async def caller(share: Sequence[bytes]) -> None:
            for file in share:
                await _ask(client, path, file, fields)

        await asyncio.gather(*(caller(files[at::callers]) for at in range(callers)))
        return time.perf_counter() - began


async def _ask(
    client: httpx.AsyncClient, path: str, file: bytes, fields: dict[str, str] | None = None
) -> None:
    answer = await client.post(path, files={"file": ("file", file)}, data=fields)
    if answer.is_error:
        raise RuntimeError(answer.text)


async def _together(suite: Suite, pictures: Sequence[bytes], page: bytes) -> None:
    """Eight callers of captions and four of pages at once, health asked all the while."""
    checks: list[float] = []
    latencies: dict[str, list[float]] = {"captions alone": [], "captions beside pages": []}
    headers = {"Authorization": f"Bearer {suite.key}"}
    async with (
        httpx.AsyncClient(base_url=suite.url, headers=headers, timeout=300) as client,
        grpc.aio.insecure_channel(suite.target("img2text")) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        async def captions(name: str) -> None:
            for file in pictures[:6]:
                began = time.perf_counter()
                await _ask(client, "/api/image-to-text", file)
                latencies[name].append(1000 * (time.perf_counter() - began))

        async def pages() -> None:
            for _ in range(3):
                await _ask(client, "/api/ocr", page)

        await asyncio.gather(*(captions("captions alone") for _ in range(8)))
        reading = asyncio.gather(*(pages() for _ in range(4)))
        await asyncio.sleep(0.3)
        seeing = asyncio.gather(*(captions("captions beside pages") for _ in range(8)))
        while not (reading.done() and seeing.done()):
            began = time.perf_counter()
            await health.Check(health_pb2.HealthCheckRequest())
            checks.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(0.02)
        await reading
        await seeing
    rows = [
        (name, str(len(each)), f"{median(each):.0f}", f"{percentile(each, 0.99):.0f}")
        for name, each in {**latencies, "health of img2text (goal p99 50 ms)": checks}.items()
    ]
    table(
        "Eight callers of captions, then four callers of pages beside them, both cores in use",
        ("", "calls", "median ms", "p99 ms"),
        rows,
    )
