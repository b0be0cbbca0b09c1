"""What is known of one model's stay in memory; its host writes it, the budget reads it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import ModelState

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 600.0
_UNUSED_STAYS = 60.0
"""Seconds that a model stays at least which was loaded ahead of any use."""


@dataclass(slots=True, eq=False)
class ModelRecord:
    """One model of a host.

    Attributes:
        entry: Its catalogue entry.
        keep_alive: Seconds that it stays loaded when idle; ``None`` for ever.
        drop: Unloads it; called with `Lifecycle.moving` held.
        reload: Begins to load it again after a failure, without evicting others.
        state: Where it stands.
        loaded: True while it is in memory.
        users: Requests that run on it or wait for it.
        waiting: Those of them, and operators, who wait for its load.
        held_bytes: What the budget counts for it, from before it is loaded.
        measured_bytes: What the last load took; 0 if it could not be measured.
        last_used: Time of the injected clock at its last use, or when it was loaded.
        last_used_at: When a request last ran on it since loading.
        verified_at: When it was last verified since loading.
        detail: Why it is FAILED.
        failures: Loads that failed in a row.
        retry_at: Time of the clock before which a use does not load it again.
    """

    entry: ModelEntry
    keep_alive: float | None
    drop: Callable[[], Awaitable[None]]
    reload: Callable[[], object]
    state: ModelState = ModelState.UNLOADED
    loaded: bool = False
    users: int = 0
    waiting: int = 0
    held_bytes: int = 0
    measured_bytes: int = 0
    last_used: float = 0.0
    last_used_at: datetime | None = None
    verified_at: datetime | None = None
    detail: str = ""
    failures: int = 0
    retry_at: float = 0.0

    @property
    def idle(self) -> bool:
        """True while it is in memory and nobody uses it."""
        return self.loaded and not self.users

    def due(self, now: float) -> bool:
        """True once it has been idle for as long as it may stay."""
        if not self.idle or self.keep_alive is None:
            return False
        stays = self.keep_alive
        if self.last_used_at is None:
            stays = max(stays, _UNUSED_STAYS)
        return now - self.last_used >= stays

    def fail(self, detail: str, now: float) -> None:
        """Notes a failure; the pause before the next try doubles with each in a row."""
        self.failures += 1
        pause = min(_FIRST_PAUSE * 2 ** (self.failures - 1), _LONGEST_PAUSE)
        self.state, self.retry_at, self.verified_at = ModelState.FAILED, now + pause, None
        self.detail = " ".join(detail.split())[:500]
