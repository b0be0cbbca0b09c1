"""Runs rounds of a gateway core that kills itself between two lines; `test_ledger_crash.py`.

Each round is a forked child: it admits, settles (for one model or for two) and refunds,
writes down what it was promised, and dies by SIGKILL at a random line of the ledger's code. Run as
``python crash_victim.py FOLDER ROUNDS SEED``.
"""

import asyncio
import os
import random
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from uuid import UUID

from atrium_common.catalogue import Catalogue
from atrium_common.domain import Usage
from atrium_gateway.admission import Outcome
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import Core, open_core
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import Tenant

_OURS = ("usage/", "admission.py", "books.py", "core.py", "sweeper.py")
TRACED = tuple(f"/atrium_gateway/{part}" for part in _OURS)
CATALOGUE = Catalogue.model_validate(
    {"models": [{"id": "m", "service": "llm", "capabilities": ["chat"], "engine": "fake"}]}
)
SETTINGS = {"spool_segment_bytes": 8192, "writer_interval_seconds": 0.01}


class Killer:
    """Counts lines and kills the process at one of them."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def trace(self, frame: FrameType, event: str, _: object):
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        if event == "line":
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def say(log: int, *words: object) -> None:
    os.write(log, (" ".join(map(str, words)) + "\n").encode())


async def one(core: Core, log: int, dice: random.Random) -> None:
    reservation = await core.admission.admit(
        Principal(tenant="acme", subject="u"),
        capability="chat",
        model="m",
        estimate=Usage(output_tokens=1000),
        request_id=UUID(int=dice.getrandbits(128)).hex,
        method="m",
    )
    say(log, "admitted", reservation.id)
    await asyncio.sleep(dice.random() * 0.01)
    if dice.random() < 0.2:
        await core.admission.refund(reservation.id, "INTERNAL")
        say(log, "refunded", reservation.id)
    else:
        amount, models = dice.randrange(1, 1000), dice.randrange(1, 4)
        usage = Usage(model="m", output_tokens=amount, pages=models)
        say(log, "settling", reservation.id, amount)
        await core.admission.settle(
            reservation.id, usage, Outcome.COMPLETED, split(amount, models) if models > 1 else ()
        )
        say(log, "settled", reservation.id, amount)


def split(amount: int, models: int) -> list[Usage]:
    """Divides tokens over models; each reads a page."""
    rest = [Usage(model=f"m{number}", pages=1) for number in range(1, models)]
    return [Usage(model="m", output_tokens=amount, pages=1), *rest]


async def live(folder: Path, log: int, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    settings = GatewaySettings(state_dir=folder, **SETTINGS)
    async with open_core(settings, catalogue=CATALOGUE) as core:
        if await core.tenants.tenant("acme") is None:
            await core.tenants.create_tenant(
                Tenant(
                    id="acme",
                    name="",
                    blocked=False,
                    unlimited=True,
                    weight=1.0,
                    limits=(),
                    created_at=datetime.now(UTC),
                )
            )

        async def worker() -> None:
            while True:
                await one(core, log, dice)

        await asyncio.gather(*(worker() for _ in range(6)))


def main() -> None:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(exist_ok=True)
    log = os.open(folder / "promises.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for number in range(rounds):
        # Early lines are start and recovery, later ones are work under load.
        lines = dice.randrange(1, 300 if number % 3 == 0 else 12_000)
        child = os.fork()
        if child == 0:
            killer = Killer(lines)
            threading.settrace(killer.trace)
            sys.settrace(killer.trace)
            asyncio.run(live(folder, log, seed + number))
        _, status = os.waitpid(child, 0)
        if os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"round {number} ended by itself: {status}")


if __name__ == "__main__":
    main()
