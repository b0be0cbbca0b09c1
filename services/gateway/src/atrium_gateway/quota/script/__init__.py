"""The script of the Redis store: one text joined from a file for each concern; `redis_calls.py`.

A file sees what those before it define. What only some operations need comes late, so that
the others do not wait for it: Redis runs the text from its beginning at each call. By the first
line the server refuses keys that lie in another slot than those of the call.
"""

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

_PIECES: Final = (
    "head",
    "counters",
    "limits",
    "seeding",
    "reservations",
    "granting",
    "ending",
)


class Script(NamedTuple):
    """A text and its SHA-1, which names it to a server that has it."""

    text: str
    digest: str


def _script(first_line: str) -> Script:
    pieces = (files(__package__).joinpath(f"{name}.lua").read_text("utf-8") for name in _PIECES)
    text = "\n".join((first_line, *pieces))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ADMITTING: Final = _script("#!lua")
"""For new work: a server whose memory is full refuses the call before it has changed anything."""
GOING_ON: Final = _script("#!lua flags=allow-oom")
"""For work that runs or has ended, on a full server, too: ends are what makes room."""
