"""What the captioner is told about a scene: captions, and questions with their answers.

The forms are BLIP-2's: a caption stands alone or goes on from an opening; a question comes as
"Question: ... Answer:", after earlier ones if there were any.
"""

from dataclasses import replace
from random import Random
from typing import NamedTuple

from atrium_diffusion.testing.shapes import COUNTS, SHAPES, Scene, caption

_OPENINGS = ("a picture of", "a photo of", "a drawing of", "an image of", "this is")
_PLAIN_SHARE, _OPENED_SHARE = 0.35, 0.1
"""Of all exchanges; the rest are questions."""
_EARLIER_SHARE, _INSTRUCTED_SHARE = 0.15, 0.1
"""Of questions."""
_INSTRUCTIONS = ("Answer in one word.", "You are a helpful assistant.", "Be brief.")


class Exchange(NamedTuple):
    """What the captioner reads behind the picture, and what it is to say."""

    prompt: str
    answer: str


class Question(NamedTuple):
    """A question about a scene, with its answer."""

    question: str
    answer: str


def canonical(scene: Scene) -> str:
    """The caption by which a scene is described: no background that would be there unasked."""
    plain = replace(scene, background=None)
    same = plain.background_seen == scene.background_seen
    return caption(plain if same else scene)


def exchange(scene: Scene, random: Random) -> Exchange:
    """Draws one of all that can be said about a scene."""
    form = random.random()
    if form < _PLAIN_SHARE:
        return Exchange("", canonical(scene))
    if form < _PLAIN_SHARE + _OPENED_SHARE:
        opening = random.choice(_OPENINGS)
        opening = opening.capitalize() if random.random() < 0.3 else opening
        return Exchange(opening, f" {canonical(scene)}")
    kinds = random.sample(questions(scene), 2 if random.random() < _EARLIER_SHARE else 1)
    *earlier, asked = [random.choice(kind) for kind in kinds]
    turns = [f"Question: {_spoken(one.question, random)} Answer: {one.answer}." for one in earlier]
    if random.random() < _INSTRUCTED_SHARE:
        turns = [random.choice(_INSTRUCTIONS), *turns]
    prompt = " ".join([*turns, f"Question: {_spoken(asked.question, random)} Answer:"])
    return Exchange(prompt, f" {asked.answer}")


def questions(scene: Scene) -> list[list[Question]]:
    """All questions about a scene by kind, in American spelling and small letters."""
    whole = ("what is in the picture?", "what do you see?", "what is this?")
    count = ("how many shapes are there?", "how many shapes are in the picture?")
    return [
        [Question(question, canonical(scene)) for question in whole],
        [Question(question, COUNTS[len(scene.figures) - 1]) for question in count],
        [Question("what color is the background?", scene.background_seen)],
        _of_each_shape(scene),
        *(_of_equals(scene) if len(set(scene.figures)) == 1 else _of_two(scene)),
    ]


def _of_each_shape(scene: Scene) -> list[Question]:
    """How many there are of each shape, and whether there are any."""
    about = []
    for shape in SHAPES:
        matching = sum(figure.shape == shape for figure in scene.figures)
        number = COUNTS[matching - 1] if matching else "none"
        about += [
            Question(f"how many {shape}s are there?", number),
            Question(f"is there a {shape}?", "yes" if matching else "no"),
        ]
    return about


def _of_equals(scene: Scene) -> list[list[Question]]:
    """Colour and shape of one figure, or of several equal ones."""
    colour, shape = scene.figures[0].colour, scene.figures[0].shape
    if len(scene.figures) == 1:
        names = ("is it", "is the shape", f"is the {shape}")
        forms = ("what shape is it?", "what shape is this?", "what shape do you see?")
        answer = shape
    else:
        names = ("are they", "are the shapes", f"are the {shape}s")
        forms = ("what shape are they?", "what shapes are they?", "what shapes do you see?")
        answer = f"{shape}s"
    return [
        [Question(f"what color {name}?", colour) for name in names],
        [Question(form, answer) for form in forms],
    ]


def _of_two(scene: Scene) -> list[list[Question]]:
    """Each of two figures that differ."""
    return [
        [
            Question(f"what shape is on the {side}?", figure.shape),
            Question(f"what color is the shape on the {side}?", figure.colour),
            Question(f"what is on the {side}?", caption(Scene(figures=(figure,)))),
        ]
        for side, figure in zip(("left", "right"), scene.figures, strict=True)
    ]


def _spoken(question: str, random: Random) -> str:
    """A question as people vary it."""
    if random.random() < 0.4:
        question = question.replace("color", "colour")
    return question.capitalize() if random.random() < 0.5 else question
