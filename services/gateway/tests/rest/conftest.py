"""The whole gateway on real sockets, over the services with their fake engines.

Lets test modules import their neighbours; the gateway is in `rest_gateway.py`.
"""

import io
import json
import sys
import wave
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atrium_diffusion.domain import Pixels

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from rest_gateway import Rest


@pytest.fixture(scope="session")
async def rest(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Rest]":
    """One gateway for all tests; each test uses tenants of its own."""
    from rest_gateway import running_rest

    async with running_rest(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def start_rest(tmp_path: Path) -> Callable[..., Any]:
    """Starts a gateway of a test's own."""
    from rest_gateway import running_rest

    return lambda **options: running_rest(tmp_path, **options)


@pytest.fixture
def llm_on(tmp_path: Path) -> Callable[..., Any]:
    """Runs a text service on a given port, for tests that kill one."""
    from rest_services import running_service

    return partial(running_service, "llm", folder=tmp_path)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for what nobody announces."""
    from rest_gateway import until

    return until


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Makes a picture file: a gradient, in a size, a mode and a format."""
    from rest_pictures import gradient

    return gradient


@pytest.fixture
def pixels() -> Callable[[bytes], Pixels]:
    """Decodes a picture file."""
    from rest_pictures import decoded

    return decoded


@pytest.fixture
def recording() -> bytes:
    """Twelve seconds of silence as WAV: three of the fake engine's segments."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(2 * 8000 * 12))
    return file.getvalue()


@pytest.fixture
def named_events() -> Callable[[str], list[tuple[str, Any]]]:
    """Reads the names and the data of an event stream."""

    def read(text: str) -> list[tuple[str, Any]]:
        blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
        return [
            (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
            for name, data in blocks
        ]

    return read


@pytest.fixture
def sse() -> Callable[[str], list[Any]]:
    """Reads the data of an event stream; `[DONE]` stays text."""

    def read(text: str) -> list[Any]:
        data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]

    return read
