"""Every stage of the captioner's training, at sizes that take seconds."""

import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from atrium_diffusion.testing.judge import judge, read
from atrium_diffusion.testing.shapes import (
    PLAIN_SCENES,
    SHAPES,
    Figure,
    Scene,
    caption,
    random_scene,
    render,
    seeded,
    several,
)
from atrium_diffusion.testing.wording import read_caption
from starter_trainer import blip2, caption_measures
from starter_trainer.blip2 import Widths
from starter_trainer.captioner import Album, Learner, LookingTask, TellingTask
from starter_trainer.captions import Recipe, train
from starter_trainer.describing import Blip2Describer
from starter_trainer.dialogue import Exchange, canonical, exchange, questions
from starter_trainer.drawing import Drawer, Order
from starter_trainer.errors import TrainingError
from starter_trainer.fit import Budget, fit, step_chance
from starter_trainer.folder import catalogue_lines
from starter_trainer.sights import Sights, drawn, rendered, roughened, shrunk

WIDTHS = Widths(side=32, width=32, vision_layers=1, qformer_layers=1, text_layers=1)
TINY = Recipe(widths=WIDTHS, rendered=48, drawn=6, looking_steps=3, telling_steps=3, batch=4)
PAIR = Scene(figures=(Figure("red", "circle"), Figure("blue", "star")))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Artist:
    """Draws what is asked for; a careless one draws every other picture blank."""

    def __init__(self, *, careless: bool = False) -> None:
        self._careless = careless
        self.orders = 0

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        pictures = []
        for order in orders:
            scene = read_caption(order.prompt)
            assert scene is not None
            self.orders += 1
            blank = self._careless and self.orders % 2 == 0
            blank_picture = Image.new("RGB", (128, 128), "white")
            pictures.append(blank_picture if blank else render(scene, seeded(order.seed)))
        return pictures

    def studio(self) -> AbstractContextManager[Drawer]:
        return nullcontext(self)


def closed() -> AbstractContextManager[Drawer]:
    pytest.fail("pictures were drawn again")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that three steps of each stage made; its work is beside it."""
    here = tmp_path_factory.mktemp("captions")
    work, out = here / "work", here / "model"
    train(TINY, studio=Artist().studio, out=out, work=work, say=lambda _: None)
    return out


def test_training_leaves_a_folder_that_blip2_code_loads_and_speaks_with(trained: Path) -> None:
    model = Blip2ForConditionalGeneration.from_pretrained(trained, local_files_only=True)
    processor = Blip2Processor.from_pretrained(trained, local_files_only=True)
    assert not model.training
    inputs = processor(
        images=[Image.new("RGB", (200, 90))],
        text=["Question: how many? Answer:"],
        return_tensors="pt",
    )
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == WIDTHS.queries
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    tokens = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3)
    assert tokens.shape[1] == inputs["input_ids"].shape[1] + 3
    assert len(Blip2Describer(trained).describe([Image.new("RGB", (64, 64))] * 2)) == 2


def test_the_captioner_is_readable_for_all_and_listed_for_the_catalogue(trained: Path) -> None:
    paths = list(trained.iterdir())
    for path in [trained, *paths]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
    names = [line for line in catalogue_lines(trained) if line.startswith("- name: ")]
    assert len(names) == len(paths)


def test_a_finished_captioner_is_not_trained_again_and_is_the_same(
    trained: Path, tmp_path: Path
) -> None:
    work = trained.parent / "work"
    train(TINY, studio=closed, out=tmp_path / "again", work=work, say=lambda _: None)
    assert catalogue_lines(tmp_path / "again") == catalogue_lines(trained)


def test_a_captioner_goes_on_only_from_checkpoints_of_its_recipe(
    trained: Path, tmp_path: Path
) -> None:
    other, work = replace(TINY, batch=5), trained.parent / "work"
    with pytest.raises(TrainingError, match="other settings"):
        train(other, studio=closed, out=tmp_path / "other", work=work, say=lambda _: None)


def test_a_folder_without_a_captioner_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no model to evaluate"):
        Blip2Describer(tmp_path / "nothing")


def losses(task: LookingTask | TellingTask, checkpoint: Path) -> tuple[float, float]:
    """The loss of a batch before forty steps, fast ones, and after them."""
    task.adam = replace(task.adam, peak=3e-3, warm_up=1)
    before = task.loss(0).item()
    budget = Budget(steps=40)
    fit(task, budget=budget, checkpoint=checkpoint, fingerprint="tiny", say=lambda _: None)
    return before, task.loss(0).item()


def test_looking_and_telling_are_learnt(tmp_path: Path) -> None:
    sights = rendered(64, side=WIDTHS.side)
    album = Album(sights, Sights((), sights.pixels[:0]), batch=8, patch=WIDTHS.patch)
    tokenizer = blip2.make_tokenizer(canonical(scene) for scene in sights.scenes)
    torch.manual_seed(0)
    learner = Learner(blip2.network(WIDTHS, tokenizer), width=WIDTHS.width)
    before, after = losses(LookingTask(learner, album), tmp_path / "looking.pt")
    assert after < 0.8 * before
    before, after = losses(TellingTask(learner, album, tokenizer), tmp_path / "telling.pt")
    assert after < 0.8 * before


def test_only_what_is_to_be_said_is_taught() -> None:
    tokenizer = blip2.make_tokenizer([canonical(scene) for scene in PLAIN_SCENES.values()] * 3)
    learner = Learner(blip2.network(WIDTHS, tokenizer), width=WIDTHS.width)
    sights = rendered(2, side=WIDTHS.side)
    task = TellingTask(learner, Album(sights, sights, batch=2, patch=8), tokenizer)
    exchanges = [Exchange("", "a red star"), Exchange("Question: how many? Answer:", " two")]
    tokens, targets = task.texts(exchanges)
    assert tokens.shape == targets.shape
    for row, said, (prompt, answer) in zip(tokens, targets, exchanges, strict=True):
        assert tokenizer.decode(row, skip_special_tokens=True) == prompt + answer
        assert tokenizer.decode(said[said >= 0]) == f"{answer}{blip2.MARK}"


def test_every_word_of_the_corpus_is_one_token_and_any_text_comes_back() -> None:
    tokenizer = blip2.make_tokenizer([f" {word} {word}" for word in ("red", "star", "Question")])
    assert len(tokenizer.tokenize(" red star Question")) == 3
    strange = "Grüße, 星! </S> é"
    ids = tokenizer(strange)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == strange


def test_a_scene_is_described_without_a_background_that_is_always_there() -> None:
    plain = several(1, "red", "circle")
    assert canonical(replace(plain, background="white")) == canonical(plain) == caption(plain)
    assert canonical(replace(plain, background="blue")) == "a red circle on a blue background"


def test_answers_are_true() -> None:
    pair = dict(question for kind in questions(PAIR) for question in kind)
    assert pair["how many shapes are there?"] == "two"
    assert pair["how many stars are there?"] == "one"
    assert (pair["is there a star?"], pair["is there a square?"]) == ("yes", "no")
    assert pair["what is on the left?"] == "a red circle"
    assert pair["what color is the shape on the right?"] == "blue"
    group = dict(question for kind in questions(several(3, "white", "star")) for question in kind)
    assert group["what color is the background?"] == "grey"
    assert group["what color are the stars?"] == "white"
    assert group["what shape are they?"] == "stars"
    assert group["what do you see?"] == "three white stars"


def test_what_is_said_about_a_scene_varies_and_repeats() -> None:
    said = [exchange(PAIR, seeded(seed)) for seed in range(200)]
    assert said == [exchange(PAIR, seeded(seed)) for seed in range(200)]
    assert any(one.prompt == "" for one in said)
    assert any(one.prompt.count("Question:") == 2 for one in said)
    assert any("colour" in one.prompt for one in said)
    assert all(one.answer.startswith(" ") for one in said if one.prompt)


def test_pictures_stay_what_they_show_on_their_way() -> None:
    random = seeded("rough")
    scenes = [random_scene(random) for _ in range(40)]
    verdicts = [judge(roughened(render(scene, random), random), scene) for scene in scenes]
    assert sum(verdict.count and verdict.colours for verdict in verdicts) >= 38


def test_of_drawn_pictures_only_good_ones_are_learnt(tmp_path: Path) -> None:
    cache, artist = tmp_path / "drawn.pt", Artist(careless=True)
    sights = drawn(8, side=32, studio=artist.studio, cache=cache, say=lambda _: None)
    assert artist.orders == 8
    assert len(sights.scenes) == len(sights.pixels) == 8  # four good ones, each twice
    again = drawn(8, side=32, studio=closed, cache=cache, say=lambda _: None)
    assert again.scenes == sights.scenes
    assert torch.equal(again.pixels, sights.pixels)


def test_each_patch_is_labelled_with_the_shape_on_it() -> None:
    levels = shrunk(render(PAIR, seeded(1)), 64)[None]
    album = Album(Sights((PAIR,), levels), Sights((), levels[:0]), batch=6, patch=8)
    batch = album.draw(*step_chance("patches", 0))
    shapes = batch.shapes.unflatten(1, (8, 8))
    circle, star = (1 + SHAPES.index(shape) for shape in ("circle", "star"))
    assert set(shapes[:, :, :3].unique().tolist()) == {0, circle}
    assert set(shapes[:, :, 5:].unique().tolist()) == {0, star}
    assert batch.pixels.abs().max() <= 1.0
    assert not torch.equal(batch.pixels[0], batch.pixels[1])


class Reader:
    """Describes with the pixel judge, which does not tell sizes; answers with one word."""

    def describe(self, pictures: Sequence[Image.Image], *, prompt: str = "") -> list[str]:
        readings = [read(picture) for picture in pictures]
        if prompt:
            return ["Gray." if "background" in prompt else "one" for _ in pictures]
        return [
            canonical(
                Scene(
                    figures=tuple(seen.figure for seen in reading.figures),
                    background=reading.background,
                )
            )
            for reading in readings
        ]


class Mute:
    """Says nothing."""

    def describe(self, pictures: Sequence[Image.Image], *, prompt: str = "") -> list[str]:
        return [""] * len(pictures)


def test_the_measures_tell_a_good_describer_from_a_mute_one() -> None:
    assert caption_measures.plain_drawn(Reader(), Artist(), seeds=1).figures["right"] >= 0.95
    assert set(caption_measures.plain_rendered(Mute(), seeds=1).figures.values()) == {0.0}
    random = caption_measures.random_rendered(Reader(), pictures=24).figures
    assert random["right"] < 0.9 < random["count"]
    answered = caption_measures.answers(Reader(), pictures=24).figures
    assert 0.3 < answered["how many"] < 0.7
    assert answered["colour"] == 0.0 < answered["background"]
