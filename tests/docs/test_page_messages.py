"""The messages that the page of troubles quotes are those of the code."""

import functools
import re
from collections.abc import Iterator

from tests.kit.pages import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
FOREIGN = "Docker:"
"""Stands before a message that is not ours."""


@functools.cache
def sources() -> str:
    """All code that may speak to somebody, its wrapped texts joined."""
    folders = [*ROOT.glob("services/*/src"), *ROOT.glob("libs/*/src/atrium_*")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    files += [file for end in ("*.py", "*.sh") for file in (ROOT / "scripts").rglob(end)]
    return "\n".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in files)


def messages() -> Iterator[str]:
    """What stands as code in the columns that are called `message`."""
    column: int | None = None
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if not line.startswith("|"):
            column = None
        elif "message" in cells:
            column = cells.index("message")
        elif column is not None and not cells[column].startswith(FOREIGN):
            yield from re.findall(r"`([^`]+)`", cells[column])


def test_every_message_is_one_of_the_code() -> None:
    found = [text for text in messages() if " " in text]
    assert len(found) > 40
    missing = {
        (text, part)
        for text in found
        for part in map(str.strip, text.split("…"))
        if len(part) > 3 and part.replace('"', '\\"') not in sources() and part not in sources()
    }
    assert not missing
