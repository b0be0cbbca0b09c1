"""BLIP-2 keeps the promises of every engine that sees, with OPT and with Flan-T5."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vision_contract import VisionContract

from atrium_common.catalogue import FolderSource, ModelEntry
from atrium_common.domain import Capability
from atrium_common.weights import WeightStore
from atrium_img2text.engines.base import VisionEngine
from atrium_img2text.engines.blip2 import Blip2Engine
from atrium_img2text.testing import tiny_blip2


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Blip2Engine]:
    folder = tmp_path_factory.mktemp("blip2")
    entries = [
        ModelEntry(
            id=family,
            service="img2text",
            capabilities=(Capability.IMAGE_TO_TEXT,),
            engine="blip2",
            options={"description_prompt": "a"} if family == "t5" else {},
            sources=(FolderSource(kind="folder", path=tiny_blip2.make(folder / family, family)),),
        )
        for family in ("opt", "t5")
    ]
    made = Blip2Engine(entries, store=WeightStore(Path(folder)))
    await made.load()
    yield made
    await made.close()


class _Blip2Contract(VisionContract):
    honours_instructions = False

    def running(self, engine: VisionEngine) -> int | None:
        assert isinstance(engine, Blip2Engine)
        return engine.captioner(self.model).running


class TestOpt(_Blip2Contract):
    model = "opt"


class TestT5(_Blip2Contract):
    model = "t5"
