"""A whole document's form that grows while its pages are read; `extracting.py` makes it.

`forms/` writes it; here its blocking work is kept off the loop, and a full disk has a name.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from atrium_common.chunks import split
from atrium_common.errors import Unavailable
from atrium_common.intake import in_thread
from atrium_img2text.forms import Form, open_form
from atrium_img2text.reading import DocumentFormat, Page, PageImage
from atrium_img2text.steps import FormChunk, FormEnd

T = TypeVar("T")


class Forming:
    """A form that is being written: `with` it, `add` each page, then send its `pieces`."""

    def __init__(self, format: DocumentFormat, folder: Path | None = None) -> None:
        """Opens nothing yet.

        Args:
            format: Which form.
            folder: Where its temporary file goes; ``None`` takes the system's.
        """
        self._format = format
        self._folder = folder
        self._form: Form

    def __enter__(self) -> Self:
        """Opens the file; `Unavailable` if there is no room for it."""
        try:
            self._form = open_form(self._format, self._folder)
        except OSError as error:
            raise _full(error) from error
        return self

    def __exit__(self, *raised: object) -> None:
        """Deletes the file."""
        self._form.close()

    async def add(self, page: Page, image: PageImage) -> None:
        """Writes a page; `Unavailable` if the disk does not take it."""
        await _on_disk(partial(self._form.add, page, image))

    async def pieces(self) -> AsyncGenerator[FormChunk | FormEnd, None]:
        """Ends the form and gives its bytes; `Unavailable` if the disk does not take it."""
        written = await _on_disk(self._form.finish)
        digest = hashlib.sha256()
        parts = split(written.file)
        while (data := await _on_disk(partial(next, parts, None))) is not None:
            digest.update(data)
            yield FormChunk(data)
        yield FormEnd(digest.digest(), written.size)


async def _on_disk(work: Callable[[], T]) -> T:
    try:
        return await in_thread(work)
    except OSError as error:
        raise _full(error) from error


def _full(error: OSError) -> Unavailable:
    return Unavailable(f"No room for the document: {error.strerror}.", reason="NO_SPACE")
