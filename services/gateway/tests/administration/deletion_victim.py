"""A process that deletes the tenant "acme" and is killed on the way; a test starts it.

python deletion_victim.py URL FOLDER MOMENT
"""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from uuid_utils import uuid7

from atrium_gateway.administration import deletion as module
from atrium_gateway.administration.deletion import TenantDeletion
from atrium_gateway.administration.desk import Administration
from atrium_gateway.audit.domain import Actor
from atrium_gateway.database import open_engine
from atrium_gateway.quota.limits import Window
from atrium_gateway.quota.policy import LimitPolicy


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(TenantDeletion):
    """Is killed at the moment that the command line names."""

    async def _done(self, deletion, step):
        if sys.argv[3] == f"before {step.value}":
            die()
        await super()._done(deletion, step)
        if sys.argv[3] == f"after {step.value}":
            die()

    async def _remove(self, deletion):
        if sys.argv[3] == "before removed":
            die()
        await super()._remove(deletion)


async def nothing() -> None:
    """There is no spool."""


async def main() -> None:
    engine = open_engine(sys.argv[1])
    desk = Administration(
        engine=engine,
        pepper=bytes(32),
        now=lambda: datetime.now(UTC),
        new_id=lambda: str(uuid7()),
        policy=LimitPolicy(default_amount=100, default_window=Window.HOUR),
        exports=Path(sys.argv[2]),
        flush=nothing,
    )
    await Dying(desk, by=Actor(subject="ada"), voices=None).delete("acme")


if sys.argv[3] == "within ledger":
    # The name is taken, the events are not: the next statement never comes.
    module.anonymise.__globals__["_rollups"] = die
asyncio.run(main())
