"""A process that takes keys and keeps answers until it is killed between two lines.

`test_idempotency_crash.py` runs it: each round is a child that SIGKILLs itself at a random
line of `atrium_gateway/idempotency`. What was promised before is in the log.
"""

import asyncio
import os
import random
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from atrium_common.errors import AtriumError
from atrium_gateway.database import open_engine
from atrium_gateway.idempotency.domain import Attempt, Bounds, key_digest
from atrium_gateway.idempotency.recorder import Recorder
from atrium_gateway.idempotency.store import AnswerStore

TRACED = "/atrium_gateway/idempotency/"
KEYS = 40


class Killer:
    """Counts lines and kills the process at one of them."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def trace(self, frame: FrameType, event: str, _: object):
        if TRACED not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def say(log: int, *words: object) -> None:
    os.write(log, (" ".join(map(str, words)) + "\n").encode())


async def one(store: AnswerStore, log: int, dice: random.Random) -> None:
    key = str(dice.randrange(KEYS))
    attempt = Attempt(
        tenant="acme",
        digest=key_digest("POST", "/", key.encode()),
        fingerprint=key.encode().ljust(32),
        id=f"{os.getpid()}-{dice.getrandbits(60)}",
        request_id="r",
    )
    try:
        if await store.claim(attempt) is not None:
            say(log, "replayed", key)
            return
    except AtriumError as err:
        say(log, err.reason, key)
        return
    say(log, "ran", key, attempt.id)
    await asyncio.sleep(dice.random() * 0.002)
    if dice.random() < 0.3:
        await store.release(attempt)
        say(log, "released", key, attempt.id)
        return
    size = dice.randrange(1, dice.choice((2_000, 600_000)))
    body = Recorder(store.bounds.answer_bytes)
    await body.add(attempt.id.encode().ljust(size, b"."))
    await store.keep(attempt, status=200, headers=(), body=body)
    body.close()
    say(log, "kept", key, attempt.id, max(size, len(attempt.id)))


async def live(url: str, now: float, log: int, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    store = AnswerStore(open_engine(url), Bounds(), clock=lambda: now)

    async def worker() -> None:
        while True:
            await one(store, log, dice)

    await asyncio.gather(*(worker() for _ in range(4)))


def main() -> None:
    url, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    log = os.open(Path(sys.argv[4]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for number in range(rounds):
        lines = dice.randrange(1, 2_500)
        child = os.fork()
        if child == 0:
            killer = Killer(lines)
            threading.settrace(killer.trace)
            sys.settrace(killer.trace)
            # Between two rounds every lease ends.
            asyncio.run(live(url, 1_790_000_000.0 + 60 * number, log, seed + number))
        _, status = os.waitpid(child, 0)
        if os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"round {number} ended by itself: {status}")


if __name__ == "__main__":
    main()
