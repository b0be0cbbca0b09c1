"""What administration does without being asked: it ends deletions and removes old exports.

A deletion that its process did not live to end, or that waits for the tts service, goes on in
whichever gateway finds it first. `__main__` enters `keeping_order`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import select

from atrium_common.errors import AtriumError
from atrium_gateway.administration.deletion import Step, TenantDeletion, Voices
from atrium_gateway.administration.desk import Administration
from atrium_gateway.audit.domain import Actor
from atrium_gateway.background import looking
from atrium_gateway.tenants.tables import tenant_deletions

_log = structlog.get_logger(__name__)

GATEWAY: Final = Actor(subject="gateway")
"""Who goes on with what someone else began; the audit log has that one's name before."""
_LOOK_SECONDS: Final = 60.0


@asynccontextmanager
async def keeping_order(
    desk: Administration,
    *,
    voices: Voices | None,
    exports_kept: timedelta,
    look_seconds: float = _LOOK_SECONDS,
) -> AsyncIterator[None]:
    """Looks now and once a minute, in the background.

    Args:
        desk: The database, and where exports are.
        voices: The tts service; ``None`` where the suite has none.
        exports_kept: How old an export may grow.
        look_seconds: Pause between two looks.
    """

    async def look() -> None:
        await end_deletions(desk, voices=voices)
        removed = await asyncio.to_thread(
            remove_exports,
            desk.exports,
            desk.now().timestamp() - exports_kept.total_seconds(),
        )
        if removed:
            _log.info("exports_removed", files=removed)

    async with looking(look, every=look_seconds, name="administration"):
        yield


async def end_deletions(desk: Administration, *, voices: Voices | None) -> None:
    """Goes on with every deletion that has not come to its end, unless another process does."""
    begun = (
        select(tenant_deletions.c.tenant)
        .where(tenant_deletions.c.step != Step.REMOVED.value)
        .order_by(tenant_deletions.c.started_at)
    )
    async with desk.engine.connect() as connection:
        waiting = list(await connection.scalars(begun))
    for tenant in waiting:
        try:
            await TenantDeletion(desk, by=GATEWAY, voices=voices).delete(tenant)
        except AtriumError as err:
            _log.warning("deletion_waits", tenant=tenant, reason=err.reason)
        else:
            _log.info("deletion_ended", tenant=tenant)


def remove_exports(folder: Path, before: float) -> int:
    """Deletes exports of deleted tenants.

    Args:
        folder: Where they are; need not exist.
        before: Those that were last written before this Unix time, in seconds.

    Returns:
        How many there were.
    """
    old = [
        file
        for kind in ("*.jsonl", "*.draft")
        for file in folder.glob(kind)
        if file.stat().st_mtime < before
    ]
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)
