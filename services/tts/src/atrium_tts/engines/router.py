"""The engines of the service as one; `servicer.py` and `speech.py` see only this."""

from collections.abc import Sequence

from atrium_common.routing import ModelRouter
from atrium_tts.domain import Voice
from atrium_tts.engines.base import SpeechEngine


class EngineRouter(ModelRouter[SpeechEngine]):
    """Finds the engine of a model; lists what all of them offer."""

    name = "tts"

    def voices(self) -> Sequence[Voice]:
        """Lists the built-in voices of all engines, in catalogue order."""
        return tuple(voice for engine in self.engines for voice in engine.voices())
