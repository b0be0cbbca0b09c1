"""Documents that tests of seeing send, and the events that come back."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image


def _sheets(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (60 + number, 40), (0, 40, 0)) for number in range(count)]


@pytest.fixture(scope="session")
def document() -> Callable[..., bytes]:
    """Makes a document of several pages, each of another width: a ``"PDF"`` or a ``"TIFF"``."""

    def make(pages: int, shape: str = "PDF") -> bytes:
        first, *others = _sheets(pages)
        file = io.BytesIO()
        first.save(file, shape, save_all=True, append_images=others)
        return file.getvalue()

    return make


@pytest.fixture
def of_kind() -> Callable[..., list[Any]]:
    """Picks the data of the events of a name."""
    return lambda events, kind: [data for name, data in events if name == kind]
