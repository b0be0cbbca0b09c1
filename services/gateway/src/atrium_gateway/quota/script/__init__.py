"""The script of the Redis store, one text joined from a file for each concern; `redis_calls.py`.

A file sees what those before it define. What only some operations need comes late, so that
the others do not wait for it: Redis runs the text from its beginning at each call.
"""

import hashlib
from importlib.resources import files
from typing import Final

_PIECES: Final = (
    "head",
    "counters",
    "limits",
    "seeding",
    "reservations",
    "granting",
    "ending",
)

SCRIPT: Final = "\n".join(
    files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in _PIECES
)
"""What `EVAL` is sent."""
DIGEST: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""What `EVALSHA` is sent."""
