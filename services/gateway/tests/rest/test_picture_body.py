"""JSON with files in it: what leaves is the document, whole, of the length that was told."""

import base64
import json
import os
from dataclasses import replace

import pytest

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Usage
from atrium_gateway.api.picture_body import JsonBody
from atrium_gateway.api.picture_bounds import drawing_bound, edit_bound, known_sizes
from atrium_gateway.pipeline import exceeds
from atrium_gateway.upstreams.pictures import Denoising, Drawing, Edit


@pytest.mark.parametrize("size", [0, 1, 2, 3, 48 << 10, (48 << 10) + 1, 200_000])
def test_files_become_base64_while_they_leave(size):
    files = [bytearray(os.urandom(size)) for _ in range(3)]
    body = JsonBody()
    body.text(b'{"files":[')
    for number, file in enumerate(files):
        body.text(b"," if number else b"")
        body.with_file("data", file, b'{"index":%d}' % number)
    body.text(b"]}")
    told = body.size
    pieces = list(body.pieces())
    assert sum(map(len, pieces)) == told
    assert all(len(piece) <= 128 << 10 for piece in pieces)
    document = json.loads(b"".join(pieces))
    assert [base64.b64decode(one["data"]) for one in document["files"]] == files
    assert [one["index"] for one in document["files"]] == [0, 1, 2]
    assert list(body.pieces()) == []


def entry(**options):
    return ModelEntry(
        id="m", service="text2image", capabilities=("text-to-image",), engine="x", options=options
    )


SHAPES = {"native_width": 128, "native_height": 64, "max_pixels": 65_536, "default_steps": 12}


@pytest.mark.parametrize(
    ("options", "asked", "milli"),
    [
        ({}, {}, 31_458),
        (SHAPES, {}, 99),
        (SHAPES, {"n": 4}, 394),
        (SHAPES, {"width": 256}, 197),
        (SHAPES, {"width": 256, "height": 256, "steps": 100}, 6554),
        # More than the model takes is refused by its service, not by a limit.
        (SHAPES, {"width": 2**31 - 1, "height": 2**31 - 1}, 787),
        ({**SHAPES, "native_width": "128", "default_steps": -1}, {}, 1967),
    ],
)
def test_drawings_are_bounded_by_the_catalogue(options, asked, milli):
    steps = asked.pop("steps", None)
    drawing = Drawing(model="m", prompt="a", denoising=Denoising(steps=steps), **asked)
    bound = drawing_bound(drawing, known_sizes(entry(**options)))
    assert (bound.millimegapixel_steps, bound.images) == (milli, drawing.n)


@pytest.mark.parametrize(
    ("asked", "milli"),
    [
        ({}, 2 * 459),
        ({"width": 64, "height": 64}, 58),
        ({"width": 64}, 2 * 459),
        ({"strength": 0.0}, 0),
        ({"strength": 0.01}, 132),
        ({"strength": 1.0}, 1573),
    ],
)
def test_edits_are_bounded_by_the_largest_size_and_their_strength(asked, milli):
    bound = edit_bound(Edit(model="m", prompt="a", **asked), 2, known_sizes(entry(**SHAPES)))
    assert bound.images == 2
    assert bound.millimegapixel_steps == pytest.approx(milli, abs=1)


def test_a_reservation_grows_with_pictures_and_their_steps():
    bound = Usage(images=2, millimegapixel_steps=100)
    assert not exceeds(bound, bound)
    assert exceeds(replace(bound, images=3), bound)
    assert exceeds(replace(bound, millimegapixel_steps=101), bound)
