"""`python -m tests.chaos [--rounds N] [--seed N]`: plays rounds until one breaks a promise.

`--layout together` and `--victim gateway` play one layout and kill only parts of that name.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from atrium_common.logs import configure_logging
from tests.chaos.rounds import BooksBroken, alone, play, together, victims
from tests.kit.stack import Stack

Layout = Callable[[Path], AbstractContextManager[Stack]]

_ALONE_SHARE = 4
"""Every fourth round is one gateway's."""


def main() -> int:
    """Returns 1 if a round broke a promise; it says which seed plays it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    parser.add_argument("--layout", choices=["alone", "together"])
    parser.add_argument("--victim", default="", help="how its name begins")
    options = parser.parse_args()
    configure_logging("chaos", "warning", "console")  # commands run here print JSON
    shares = {"alone": options.rounds, "together": 0, None: -(-options.rounds // _ALONE_SHARE)}
    few = shares[options.layout]
    plan = {alone: range(few), together: range(few, options.rounds)}
    for layout, numbers in plan.items():
        if numbers and not _played(layout, numbers, options.seed, options.victim):
            return 1
    print(f"{options.rounds} rounds: every answer is in the ledger once, and the sums agree")
    return 0


def _played(layout: Layout, numbers: range, seed: int, named: str) -> bool:
    """Plays rounds over one running stack; says whether every promise held."""
    with (
        tempfile.TemporaryDirectory(prefix="atrium-chaos-") as folder,
        layout(Path(folder)) as stack,
    ):
        turns = [each for each in victims(stack) if each.name.startswith(named)]
        for number in numbers:
            name = f"round {number}, {layout.__name__}"
            victim = turns[number % len(turns)]
            try:
                line = asyncio.run(play(stack, victim, seed=seed + number))
            except (BooksBroken, TimeoutError) as broken:
                again = f"{name}, seed {seed + number}, {victim.name} killed"
                print(f"{again}: {broken or 'nothing is answered any more'}", file=sys.stderr)
                return False
            print(f"{name}, {line}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
