"""Tells whether a caption says what a scene of shapes shows, however it is worded.

The captioner's evaluation in `models/starter` and the tests of pictures that are described
compare with it: "One red circle." and "a picture of a red circle" say the same.
"""

import re
from dataclasses import replace

from atrium_diffusion.testing.shapes import COLOURS, COUNTS, GREY, SHAPES, Figure, Scene, Size

_COLOUR = "|".join((*COLOURS, GREY))
_SHAPE = "|".join(SHAPES)
_OPENING = re.compile(r"^(?:an?|the) (?:picture|photo|drawing|image) of ")
_ARTICLE = re.compile(r"^(?:an?|one) ")
_GROUP = re.compile(
    rf"(?P<count>{'|'.join(COUNTS[1:])}) (?P<colour>{_COLOUR}) (?P<shape>{_SHAPE})s"
)
_FIGURE = re.compile(rf"(?:(?P<size>small|large) )?(?P<colour>{_COLOUR}) (?P<shape>{_SHAPE})")
_BACKGROUND = re.compile(rf"(?P<figures>.+) on an? (?P<colour>{_COLOUR}) background")


def read_caption(text: str) -> Scene | None:
    """The scene that a caption describes, or ``None`` where it describes none.

    Openings ("a picture of"), articles, capitals, a full stop and "gray" make no difference.
    A background that would be there unasked counts as not asked for.
    """
    words = " ".join(text.lower().replace("gray", GREY).strip(" .!\n").split())
    words = _OPENING.sub("", words)
    background = None
    if match := _BACKGROUND.fullmatch(words):
        words, background = match["figures"], match["colour"]
    scene = _foreground(words)
    if scene is None or background in (None, scene.background_seen):
        return scene
    return replace(scene, background=background)


def says(text: str, scene: Scene) -> bool:
    """Whether a caption says all of a scene: each figure, how many, size and background."""
    read = read_caption(text)
    return (
        read is not None
        and (read.figures, read.size) == (scene.figures, scene.size)
        and read.background_seen == scene.background_seen
    )


def _foreground(words: str) -> Scene | None:
    """One figure, a group of equal ones, or two that differ."""
    if group := _GROUP.fullmatch(words):
        figure = Figure(group["colour"], group["shape"])
        return Scene(figures=(figure,) * (1 + COUNTS.index(group["count"])))
    parts = [_FIGURE.fullmatch(_ARTICLE.sub("", part)) for part in words.split(" and ")]
    figures = tuple(Figure(part["colour"], part["shape"]) for part in parts if part is not None)
    sizes = [Size(part["size"] or "") for part in parts if part is not None]
    if len(figures) != len(parts) or len(figures) > 2 or (len(figures) == 2 and any(sizes)):
        return None
    return Scene(figures=figures, size=sizes[0])
