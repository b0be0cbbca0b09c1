"""Every stage of the picture model's training, at sizes that take seconds."""

import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from atrium_diffusion.testing.shapes import (
    PLAIN_SCENES,
    caption,
    random_scene,
    render,
    seeded,
    several,
)
from starter_trainer import measures, networks
from starter_trainer.drawing import EngineDrawer, Order
from starter_trainer.errors import TrainingError
from starter_trainer.fit import Adam, Budget, fit
from starter_trainer.folder import catalogue_lines
from starter_trainer.networks import Widths
from starter_trainer.pictures import Recipe, train
from starter_trainer.vae import faithfulness, start_as_identity, to_pixels, to_tensor
from starter_trainer.words import make_tokenizer, token_ids

TINY = Recipe(
    widths=Widths(side=64, unet=(16, 16, 16), vae=(8, 8, 8, 8), text=16, text_layers=2),
    pairs=8,
    vae_steps=3,
    denoiser_steps=3,
    batch=4,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that three steps of each stage made; its work is beside it."""
    here = tmp_path_factory.mktemp("training")
    said: list[str] = []
    train(TINY, out=here / "model", work=here / "work", say=said.append)
    assert any("judge accepts" in line for line in said)
    return here / "model"


def test_training_leaves_a_folder_that_sdxl_code_loads_and_draws_with(trained: Path) -> None:
    prompts = list(PLAIN_SCENES)[:2]
    with EngineDrawer(trained, side=64, steps=2) as drawer:
        first, second = drawer.draw([Order(prompt=prompt, seed=1) for prompt in prompts])
        assert first.size == second.size == (64, 64)
        edit = Order(prompt=prompts[0], seed=1, source=first, strength=0.5)
        assert drawer.draw([edit])[0].size == (64, 64)


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match="no model to evaluate"),
        EngineDrawer(tmp_path / "nothing"),
    ):
        pytest.fail("it was loaded")


def test_the_folder_is_in_half_precision_and_readable_for_all(trained: Path) -> None:
    for path in trained.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path
    weights = list(trained.rglob("*.safetensors"))
    assert len(weights) == 4
    for path in weights:
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    lines = catalogue_lines(trained)
    assert sum(line.startswith("- name: ") for line in lines) == sum(
        path.is_file() for path in trained.rglob("*")
    )


def test_the_folder_says_what_its_latents_are_like(trained: Path) -> None:
    """Edits draw from the encoder's variance: it is small, and latents are normalised."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        trained, dtype=torch.float32, local_files_only=True, add_watermarker=False
    )
    random = seeded(1)
    pictures = to_tensor(render(random_scene(random), random, side=64) for _ in range(16))
    with torch.no_grad():
        latents = pipeline.vae.encode(pictures).latent_dist
    deviation = torch.tensor(pipeline.vae.config.latents_std)[:, None, None]
    assert (latents.std / deviation).max() < 0.03
    assert 0.5 < (latents.mean / deviation).std() < 2.0


def test_a_finished_training_is_not_done_again_and_gives_the_same(
    trained: Path, tmp_path: Path
) -> None:
    train(TINY, out=tmp_path / "again", work=trained.parent / "work", say=lambda _: None)
    assert catalogue_lines(tmp_path / "again") == catalogue_lines(trained)


def test_checkpoints_of_another_recipe_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="other settings"):
        train(
            replace(TINY, batch=5),
            out=tmp_path / "other",
            work=trained.parent / "work",
            say=lambda _: None,
        )


def test_a_fresh_autoencoder_already_gives_blurred_pictures_back() -> None:
    vae = networks.autoencoder(Widths())
    start_as_identity(vae)
    psnr, _ = faithfulness(vae, pictures=4)
    assert psnr > 15.0


def test_pictures_survive_the_way_to_tensors_and_back() -> None:
    picture = render(several(1, "red", "star"), seeded(2))
    assert np.array_equal(to_pixels(to_tensor([picture]))[0], np.asarray(picture))


def test_known_words_are_one_token_and_the_window_is_kept() -> None:
    corpus = [caption(scene) for scene in PLAIN_SCENES.values()] * 3
    tokenizer = make_tokenizer(corpus, window=16)
    ids = token_ids(tokenizer, ["three green stars", "Three GREEN stars", "x" * 300])
    assert ids.shape == (3, 16)
    assert torch.equal(ids[0], ids[1])
    assert ids[0, 0] == tokenizer.bos_token_id
    assert ids[0, 4] == tokenizer.eos_token_id
    assert ids[2, -1] == tokenizer.eos_token_id


class Slope:
    """The plainest task: two numbers are to be three and minus two."""

    name = "slope"
    adam = Adam(peak=0.1, floor=0.0, warm_up=5, betas=(0.9, 0.99), weight_decay=0.0)

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.module = nn.Linear(1, 1)
        nn.init.zeros_(self.module.weight)
        nn.init.zeros_(self.module.bias)
        self._stop_at = stop_at

    def loss(self, step: int) -> Tensor:
        if step == self._stop_at:
            raise KeyboardInterrupt
        inputs = torch.linspace(-1, 1, 9)[:, None] * (1 + step % 3)
        return (self.module(inputs) - (3 * inputs - 2)).square().mean()

    @property
    def weights(self) -> tuple[float, float]:
        return self.module.weight.item(), self.module.bias.item()


def ticking() -> Iterator[float]:
    """A clock that moves on by a minute with every look."""
    now = 0.0
    while True:
        yield now
        now += 60.0


def fitted(task: Slope, checkpoint: Path, *, budget: Budget) -> list[str]:
    said: list[str] = []
    clock = ticking()
    fit(
        task,
        budget=budget,
        checkpoint=checkpoint,
        fingerprint="slope",
        say=said.append,
        clock=lambda: next(clock),
    )
    return said


def test_the_loss_falls_and_the_time_left_is_told(tmp_path: Path) -> None:
    task = Slope()
    said = fitted(task, tmp_path / "slope.pt", budget=Budget(steps=200))
    assert task.weights == pytest.approx((3.0, -2.0), abs=0.1)
    assert "left" in said[0]
    assert "done: 200 steps" in said[-1]
    losses = [float(line.split("loss ")[1].split()[0].rstrip(",")) for line in said]
    assert losses[-1] < 0.1 * losses[0]


def test_stopped_training_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole, stopped, resumed = Slope(), Slope(stop_at=40), Slope()
    budget = Budget(steps=80)
    fitted(whole, tmp_path / "whole.pt", budget=budget)
    with pytest.raises(KeyboardInterrupt):
        fitted(stopped, tmp_path / "parts.pt", budget=budget)
    fitted(resumed, tmp_path / "parts.pt", budget=budget)
    assert resumed.weights == whole.weights


def test_a_budget_of_time_ends_training(tmp_path: Path) -> None:
    said = fitted(Slope(), tmp_path / "time.pt", budget=Budget(steps=10**9, seconds=600.0))
    assert "done: 10 steps" in said[-1]


class Perfect:
    """Draws what is asked for, wherever the source's figure stood."""

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        return [render(PLAIN_SCENES[order.prompt], seeded(order.seed)) for order in orders]


class Idle:
    """Gives every source back."""

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        return [order.source for order in orders if order.source is not None]


def test_the_measures_tell_a_perfect_drawer_from_an_idle_one() -> None:
    assert measures.plain_prompts(Perfect()).figures["right"] == 1.0
    for drawer, changed, kept in ((Perfect(), 1.0, 0.0), (Idle(), 0.0, 1.0)):
        recoloured = measures.recolouring(drawer, pictures=12)
        assert (recoloured.figures["colour"], recoloured.figures["shape"]) == (changed, 1.0)
        reshaped = measures.reshaping(drawer, pictures=12)
        assert (reshaped.figures["colour"], reshaped.figures["shape"]) == (1.0, changed)
        assert (recoloured.figures["IoU"] == 1.0) == (kept == 1.0)
        assert len(reshaped.sheet) == 24


def test_a_sheet_holds_every_picture() -> None:
    picture = render(several(1, "red", "star"), seeded(3))
    assert measures.sheet([picture] * 9).size == (1024, 256)
