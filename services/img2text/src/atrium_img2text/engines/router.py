"""The engines of the service as one: who sees and who reads, by the model's id.

`__main__` makes it, the servicer sees only this.
"""

from atrium_common.errors import NotFound
from atrium_common.routing import ModelRouter
from atrium_img2text.engines.base import ReadingEngine, ScheduledEngine, VisionEngine


class SightRouter(ModelRouter[ScheduledEngine]):
    """Dispatches by model id."""

    name = "img2text"

    def vision(self, model: str) -> VisionEngine:
        """Returns the engine that sees with `model`; `NotFound` if it has none or only reads."""
        engine = self.engine_of(model)
        if not isinstance(engine, VisionEngine):
            raise _cannot(model, "describe pictures")
        return engine

    def reading(self, model: str) -> ReadingEngine:
        """Returns the engine that reads with `model`; `NotFound` if it has none or only sees."""
        engine = self.engine_of(model)
        if not isinstance(engine, ReadingEngine):
            raise _cannot(model, "read text")
        return engine


def _cannot(model: str, what: str) -> NotFound:
    return NotFound(
        f"The model {model!r} does not {what}.", reason="MODEL_NOT_FOUND", field="model"
    )
