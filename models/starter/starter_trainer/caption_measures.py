"""The figures of a captioner: what share of its captions and answers is right."""

from collections.abc import Callable, Sequence

from PIL import Image

from atrium_diffusion.testing.shapes import (
    COUNTS,
    GREY,
    PLAIN_SCENES,
    Scene,
    caption,
    random_scene,
    render,
    seeded,
)
from atrium_diffusion.testing.wording import read_caption, says
from starter_trainer.describing import Describer
from starter_trainer.drawing import Drawer, Order
from starter_trainer.measures import Result, mean

_FIRST_SEED = 1000
_QUESTIONS: dict[str, tuple[str, Callable[[Scene], str]]] = {
    "how many": ("how many shapes are there?", lambda scene: COUNTS[len(scene.figures) - 1]),
    "colour": ("what color is the shape?", lambda scene: scene.figures[0].colour),
    "shape": ("what shape is it?", lambda scene: scene.figures[0].shape),
    "background": ("what color is the background?", lambda scene: scene.background_seen),
}
"""Each with its answer; colour and shape are asked of single figures."""
_OF_SINGLE_FIGURES = ("colour", "shape")


def plain_rendered(describer: Describer, *, seeds: int) -> Result:
    """The sixty plain scenes, rendered."""
    scenes = list(PLAIN_SCENES.values()) * seeds
    pictures = [render(scene, seeded(f"plain {at}")) for at, scene in enumerate(scenes)]
    return _captions("plain scenes, rendered", describer, scenes, pictures)


def plain_drawn(describer: Describer, drawer: Drawer, *, seeds: int) -> Result:
    """The sixty plain prompts as the picture model draws them: the loop from words to words."""
    scenes = list(PLAIN_SCENES.values()) * seeds
    return _captions("plain prompts, drawn", describer, scenes, _drawings(drawer, scenes))


def random_rendered(describer: Describer, *, pictures: int) -> Result:
    """All that the model knows: sizes, backgrounds, pairs, groups."""
    scenes, shown = _random_scenes(pictures)
    return _captions("random scenes, rendered", describer, scenes, shown)


def answers(describer: Describer, *, pictures: int) -> Result:
    """Questions about random scenes."""
    scenes, shown = _random_scenes(pictures)
    figures = {}
    for name, (question, answer) in _QUESTIONS.items():
        asked = [
            (picture, answer(scene))
            for picture, scene in zip(shown, scenes, strict=True)
            if len(scene.figures) == 1 or name not in _OF_SINGLE_FIGURES
        ]
        prompt = f"Question: {question} Answer:"
        given = describer.describe([picture for picture, _ in asked], prompt=prompt)
        pairs = zip(given, asked, strict=True)
        figures[name] = mean(_plain(one) == wanted for one, (_, wanted) in pairs)
    return Result(name="questions", pictures=pictures, figures=figures, sheet=shown)


def _plain(answer: str) -> str:
    return answer.lower().strip(" .").replace("gray", GREY)


def _random_scenes(count: int) -> tuple[list[Scene], list[Image.Image]]:
    random = seeded("captions' evaluation")
    scenes = [random_scene(random) for _ in range(count)]
    return scenes, [render(scene, random) for scene in scenes]


def _drawings(drawer: Drawer, scenes: Sequence[Scene]) -> list[Image.Image]:
    return drawer.draw(
        [Order(prompt=caption(scene), seed=_FIRST_SEED + at) for at, scene in enumerate(scenes)]
    )


def _captions(
    name: str, describer: Describer, scenes: Sequence[Scene], pictures: Sequence[Image.Image]
) -> Result:
    texts = describer.describe(pictures)
    told = [(read_caption(text), scene) for text, scene in zip(texts, scenes, strict=True)]

    def agree(view: Callable[[Scene], object]) -> float:
        return mean(read is not None and view(read) == view(scene) for read, scene in told)

    figures = {
        "right": mean(says(text, scene) for text, scene in zip(texts, scenes, strict=True)),
        "colours": agree(lambda scene: [figure.colour for figure in scene.figures]),
        "count": agree(lambda scene: len(scene.figures)),
        "shapes": agree(lambda scene: [figure.shape for figure in scene.figures]),
        "size": agree(lambda scene: scene.size),
        "background": agree(lambda scene: scene.background_seen),
    }
    return Result(name=name, pictures=len(pictures), figures=figures, sheet=pictures)
