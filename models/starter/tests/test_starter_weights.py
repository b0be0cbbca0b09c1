"""The published weights: what the catalogue says of them, and what the captioner knows."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from atrium_common.catalogue import Catalogue, FolderSource
from atrium_diffusion.testing.shapes import COUNTS, PLAIN_SCENES, render, seeded
from atrium_diffusion.testing.wording import says
from starter_trainer.describing import Blip2Describer

STARTER = Path(__file__).parents[1]
SCENES = list(PLAIN_SCENES.values())

pytestmark = pytest.mark.model


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def describer() -> Blip2Describer:
    return Blip2Describer(STARTER / "blip2-shapes-64")


@pytest.mark.parametrize("folder", ["sdxl-shapes-128", "blip2-shapes-64"])
def test_the_catalogue_knows_every_published_file(folder: str) -> None:
    sources = {
        source.path.name: source
        for entry in Catalogue.load(STARTER.parent / "starter.yaml")
        for source in entry.sources
        if isinstance(source, FolderSource)
    }
    listed = {file.name: (file.sha256, file.size) for file in sources[folder].files}
    published = {
        path.relative_to(STARTER / folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_size,
        )
        for path in (STARTER / folder).rglob("*")
        if path.is_file()
    }
    assert listed == published


def test_published_weights_stay_small() -> None:
    weights = sum(path.stat().st_size for path in STARTER.rglob("*.safetensors"))
    assert weights < 25_000_000


def test_plain_scenes_are_described_as_they_are(describer: Blip2Describer) -> None:
    pictures = [render(scene, seeded(f"test {at}")) for at, scene in enumerate(SCENES)]
    captions = describer.describe(pictures)
    right = sum(says(text, scene) for text, scene in zip(captions, SCENES, strict=True))
    assert right >= 57


def test_questions_about_plain_scenes_are_answered(describer: Blip2Describer) -> None:
    pictures = [render(scene, seeded(f"asked {at}")) for at, scene in enumerate(SCENES)]
    counts = describer.describe(pictures, prompt="Question: how many shapes are there? Answer:")
    wanted = [COUNTS[len(scene.figures) - 1] for scene in SCENES]
    assert sum(map(str.__eq__, counts, wanted)) >= 57
    singles = [at for at, scene in enumerate(SCENES) if len(scene.figures) == 1]
    for question, name in (
        ("what color is the shape?", "colour"),
        ("what shape is it?", "shape"),
    ):
        prompt = f"Question: {question} Answer:"
        given = describer.describe([pictures[at] for at in singles], prompt=prompt)
        asked = [getattr(SCENES[at].figures[0], name) for at in singles]
        assert sum(map(str.__eq__, given, asked)) >= 0.9 * len(singles)
