"""The starter captioner keeps the promises of every engine that sees."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from vision_contract import VisionContract

from atrium_common.catalogue import Catalogue
from atrium_common.weights import WeightStore
from atrium_img2text.engines.base import VisionEngine
from atrium_img2text.engines.blip2 import Blip2Engine

STARTER = Path(__file__).parents[3] / "models/starter.yaml"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Blip2Engine]:
    entries = [
        entry
        for entry in Catalogue.load(STARTER).for_service("img2text")
        if entry.engine == "blip2"
    ]
    engine = Blip2Engine(entries, store=WeightStore(tmp_path_factory.mktemp("weights")))
    await engine.load()
    yield engine
    await engine.close()


class TestStarter(VisionContract):
    model = "blip2-shapes-64"
    bounds = (1, 2)  # its answer has three
    honours_instructions = False

    def running(self, engine: VisionEngine) -> int | None:
        assert isinstance(engine, Blip2Engine)
        return engine.captioner(self.model).running
