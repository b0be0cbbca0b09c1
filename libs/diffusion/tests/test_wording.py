"""Captions are compared by what they say, not by how."""

import pytest

from atrium_diffusion.testing.shapes import (
    PLAIN_SCENES,
    Figure,
    Scene,
    Size,
    caption,
    random_scene,
    seeded,
    several,
    varied_caption,
)
from atrium_diffusion.testing.wording import read_caption, says


def test_every_scene_is_said_by_its_own_words_however_they_vary() -> None:
    random = seeded("wording")
    for _ in range(300):
        scene = random_scene(random)
        assert says(caption(scene), scene)
        assert says(varied_caption(scene, random), scene)


def test_no_plain_prompt_says_another_ones_scene() -> None:
    for scene in PLAIN_SCENES.values():
        assert [prompt for prompt in PLAIN_SCENES if says(prompt, scene)] == [caption(scene)]


@pytest.mark.parametrize(
    "text", ["An image of ONE red circle. ", "red circle", "a red circle on a white background"]
)
def test_wording_makes_no_difference(text: str) -> None:
    assert says(text, several(1, "red", "circle"))


def test_a_background_is_part_of_what_is_said() -> None:
    assert not says("a red circle on a blue background", several(1, "red", "circle"))
    assert says("a white star on a gray background", several(1, "white", "star"))
    assert not says("a white star on a white background", several(1, "white", "star"))


def test_the_order_of_two_and_the_size_are_part_of_what_is_said() -> None:
    pair = Scene(figures=(Figure("red", "circle"), Figure("blue", "star")))
    assert says("a red circle and a blue star", pair)
    assert not says("a blue star and a red circle", pair)
    assert not says("a red circle", Scene(figures=(Figure("red", "circle"),), size=Size.LARGE))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "and",
        "a red",
        "two red circle",
        "a red circles",
        "a pink circle",
        "a red circle and",
        "a red circle and a blue star and a green square",
        "a small red circle and a blue star",
    ],
)
def test_what_describes_no_scene_is_not_read(text: str) -> None:
    assert read_caption(text) is None
