"""What the tests of documents share: openers' limits, files, and that nothing is left."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from atrium_img2text.documents import DocumentLimits, DocumentOpener

LIMITS = DocumentLimits(page_time=timedelta(seconds=60))


def limits(**changes: Any) -> DocumentLimits:
    return replace(LIMITS, **changes)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def processes() -> list[psutil.Process]:
    """Those that draw now, and are children of ours."""
    drawing = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it has just ended
            if any("pdf_worker" in part for part in one.cmdline()):
                drawing.append(one)
    return drawing


def assert_idle(opener: DocumentOpener) -> None:
    assert opener.drawing.running == opener.drawing.depth == 0
    assert opener.decoding.running == opener.decoding.depth == 0
    assert processes() == []
