"""What the harness knows of an engine's models: their state and their verification.

`server.py` keeps one board per service; health, /health/ready, metrics and the
ModelService read it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from atrium_common.domain import ModelInfo, ModelState
from atrium_common.engine import Engine
from atrium_common.errors import AtriumError


def _now() -> datetime:
    return datetime.now(UTC)


class ModelBoard:
    """The models of one engine, with what verification found."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime] = _now) -> None:
        self._engine = engine
        self._now = now
        self._verified: dict[str, datetime] = {}
        self._broken: dict[str, str] = {}
        self._snapshot: Sequence[ModelInfo] = ()
        self._log = structlog.get_logger("atrium.models")

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models now. Call it in the event loop's thread."""
        self._snapshot = tuple(self._judge(model) for model in self._engine.models())
        return self._snapshot

    def snapshot(self) -> Sequence[ModelInfo]:
        """Returns the last list; safe to call in any thread."""
        return self._snapshot

    def find(self, name: str) -> ModelInfo | None:
        """Returns the model with this id or alias; the first, if they share an alias."""
        for model in self.models():
            if name == model.id or name in model.aliases:
                return model
        return None

    def due(self) -> tuple[str, ...]:
        """Lists the loaded models that no verification has passed since loading."""
        return tuple(
            model.id
            for model in self._engine.models()
            if model.state is ModelState.READY
            and model.verified_at is None
            and model.id not in self._verified
        )

    async def verify(self, model: str, *, timeout: float) -> None:
        """Runs the engine's pass, outside of any queue, and notes what came of it."""
        try:
            async with asyncio.timeout(timeout):
                await self._engine.verify(model)
        except Exception as error:
            # Whatever an engine raises, the model can't answer: operators must see it.
            detail = error.message if isinstance(error, AtriumError) else type(error).__name__
            self._verified.pop(model, None)
            self._broken[model] = f"verification failed: {detail}"
            self._log.error("model not verified", model=model, exc_info=error)
        else:
            self._broken.pop(model, None)
            self._verified[model] = self._now()
            self._log.info("model verified", model=model)

    def forget(self, model: str) -> None:
        """Drops what is known of a model that was unloaded."""
        self._verified.pop(model, None)
        self._broken.pop(model, None)

    def _judge(self, model: ModelInfo) -> ModelInfo:
        if model.state is not ModelState.READY:
            self.forget(model.id)
            return model
        broken = self._broken.get(model.id)
        if broken is not None:
            return replace(model, state=ModelState.FAILED, detail=broken)
        return replace(model, verified_at=model.verified_at or self._verified.get(model.id))
