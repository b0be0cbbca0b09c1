"""The pixel judge accepts what was rendered and refuses everything else."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from atrium_diffusion.testing.judge import judge, read, silhouette_iou
from atrium_diffusion.testing.shapes import (
    COLOURS,
    PALETTE,
    PLAIN_SCENES,
    SHAPES,
    Figure,
    Scene,
    caption,
    draw_figure,
    random_scene,
    recoloured,
    render,
    seeded,
    several,
    varied_caption,
)

SCENES = 200


def test_rendered_scenes_are_accepted() -> None:
    random = seeded(1)
    scenes = [random_scene(random) for _ in range(SCENES)]
    right = sum(judge(render(scene, random), scene).right for scene in scenes)
    assert right >= 0.99 * SCENES


@pytest.mark.parametrize("prompt", PLAIN_SCENES)
def test_the_plain_scenes_are_accepted(prompt: str) -> None:
    verdict = judge(render(PLAIN_SCENES[prompt], seeded(2)), PLAIN_SCENES[prompt])
    assert verdict.right
    assert verdict.fit > 0.75


def test_there_are_sixty_plain_prompts_with_the_well_known_ones() -> None:
    assert len(PLAIN_SCENES) == 60
    assert {"a red circle", "three green stars", "two blue squares"} <= PLAIN_SCENES.keys()


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        (several(1, "blue", "circle"), {"colours"}),
        (several(1, "red", "square"), {"shapes"}),
        (several(2, "red", "circle"), {"count"}),
        (several(3, "green", "star"), {"count", "colours", "shapes"}),
        (replace(several(1, "red", "circle"), background="yellow"), {"background"}),
        (several(1, "white", "circle"), {"background", "colours"}),
    ],
)
def test_what_is_wrong_is_named(shown: Scene, wrong: set[str]) -> None:
    verdict = judge(render(shown, seeded(3)), several(1, "red", "circle"))
    aspects = ("background", "count", "colours", "shapes")
    assert {aspect for aspect in aspects if not getattr(verdict, aspect)} == wrong
    assert not verdict.right


def test_a_scene_is_no_other() -> None:
    """A picture is accepted for one of the plain scenes only."""
    scenes = list(PLAIN_SCENES.values())
    for place, scene in enumerate(scenes[::6]):
        picture = render(scene, seeded(4))
        others = [other for other in scenes[place % 7 :: 7] if other != scene]
        assert not any(judge(picture, other).right for other in others)


def test_close_figures_with_soft_edges_are_told_apart() -> None:
    """As a small model draws them: halos that touch."""
    for colour in ("red", "yellow", "black"):
        scene = several(2, colour, "circle")
        canvas = Image.new("RGB", (128, 128), "white")
        for x in (0.32, 0.68):
            draw_figure(canvas, "circle", PALETTE[colour], (x, 0.5), 0.16)
        assert judge(canvas.filter(ImageFilter.GaussianBlur(2.5)), scene).right


def test_soft_stars_are_stars() -> None:
    scene = several(4, "orange", "star")
    picture = render(scene, seeded(11)).filter(ImageFilter.GaussianBlur(2))
    assert judge(picture, scene).right


def test_two_colours_of_a_pair_are_not_to_be_swapped_between_shapes() -> None:
    asked = Scene(figures=(Figure("red", "circle"), Figure("blue", "star")))
    swapped = Scene(figures=(Figure("blue", "circle"), Figure("red", "star")))
    assert not judge(render(swapped, seeded(5)), asked).right


def test_blank_and_noisy_pictures_are_refused() -> None:
    scene = several(1, "red", "circle")
    noise = np.random.default_rng(6).integers(0, 256, (128, 128, 3), np.uint8)
    for picture in (Image.new("RGB", (128, 128), "white"), Image.fromarray(noise)):
        assert not judge(picture, scene).right
    assert read(Image.new("RGB", (128, 128), "white")).largest is None


def test_pictures_are_read_at_any_size_and_as_arrays() -> None:
    scene = several(3, "green", "star")
    for side in (96, 200, 256):
        picture = render(scene, seeded(7), side=side)
        assert judge(picture, scene).right
        assert judge(np.asarray(picture), scene).right


def test_a_twin_has_the_silhouette_and_other_colours() -> None:
    random = seeded(8)
    for seed in range(40):
        scene = replace(random_scene(random), background="white")
        if any(figure.colour == "white" for figure in scene.figures):
            continue
        twin = recoloured(scene, random)
        pictures = render(scene, seeded(seed)), render(twin, seeded(seed))
        assert judge(pictures[1], twin).right
        assert not {each.colour for each in scene.figures} & {
            each.colour for each in twin.figures if len(set(scene.figures)) == 1
        }
        assert silhouette_iou(*pictures) > 0.95


def test_silhouettes_tell_shapes_apart() -> None:
    circle, star = (render(several(1, "red", shape), seeded(9)) for shape in ("circle", "star"))
    assert silhouette_iou(circle, circle) == 1.0
    assert silhouette_iou(circle, star) < 0.6


def test_captions_name_what_is_seen() -> None:
    random = seeded(10)
    for _ in range(SCENES):
        scene = random_scene(random)
        for words in (caption(scene), varied_caption(scene, random)):
            said = words.lower().rstrip(".").replace(" on a", " on ").split()
            assert {figure.colour for figure in scene.figures} <= set(said)
            assert {figure.shape for figure in scene.figures} <= {
                word.removesuffix("s") for word in said
            }
            assert {word for word in said if word in COLOURS} == {
                figure.colour for figure in scene.figures
            } | ({scene.background} - {None})
            assert any(word.removesuffix("s") in SHAPES for word in said)
