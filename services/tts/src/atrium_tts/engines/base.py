"""What every speech engine meets, so that the servicer needs to know none."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from atrium_common.domain import ModelInfo
from atrium_common.work import Batching, Serial
from atrium_tts.domain import SpeakRequest, Voice

Samples: TypeAlias = NDArray[np.float32]
"""Mono audio, shape (n,), from -1 to 1."""


class SpeechEngine(Protocol):
    """Serves one or more speech models of the catalogue.

    It says one utterance at a time: cutting texts into sentences, taking turns between
    callers, encoding and metering are done once for all engines, in `speech.py`.
    """

    name: str
    """Registry name, e.g. ``"kokoro"``; it stands in every `Usage`."""

    @property
    def scheduling(self) -> Serial | Batching:
        """Which kind of queue stands in front of it; a turn is one utterance."""
        ...

    @property
    def sentencewise(self) -> bool:
        """True if texts are cut into sentences; False if it wants a text whole (a provider)."""
        ...

    async def load(self) -> None:
        """Loads every model that is to be ready at start."""
        ...

    async def close(self) -> None:
        """Stops running work and frees memory. May be called twice."""
        ...

    def models(self) -> Sequence[ModelInfo]:
        """Lists the models, in catalogue order, with their present state."""
        ...

    async def verify(self, model: str) -> None:
        """Says a short word; raises if that fails."""
        ...

    def voices(self) -> Sequence[Voice]:
        """Lists the built-in voices; the first of a model (and language) is its default.

        Known without the weights being loaded.
        """
        ...

    def languages(self, model: str) -> Sequence[str]:
        """BCP 47 tags that the model speaks, e.g. ``"en-us"``, ``"en"``, ``"ja"``."""
        ...

    def sample_rate(self, model: str) -> int:
        """Samples per second of what `speak` gives."""
        ...

    def speeds(self, model: str) -> tuple[float, float]:
        """Slowest and fastest that the model speaks by itself; what is left is stretched."""
        ...

    def check_ready(self, model: str) -> None:
        """Refuses a model that can't speak now, nor be loaded for it.

        Raises:
            NotFound: This engine does not serve the model.
            Unavailable: It has failed, or the engine is closed.
        """
        ...

    def check(self, request: SpeakRequest) -> None:
        """Refuses at once, before any work, what the model can't do.

        `text` may be the whole input here.

        Raises:
            NotFound: This engine does not serve the model.
            InvalidArgument: An option is not the model's; `field` names it
                (``"language"``, ``"seed"``, ``"temperature"``, ``"instructions"``).
        """
        ...

    def speak(self, request: SpeakRequest) -> AsyncIterator[Samples]:
        """Streams the audio of one utterance, in one piece or as it is made.

        Closing the iterator stops the work at the next piece.

        Raises:
            Unavailable: The model is not loaded, or a provider can't be reached.
        """
        ...


@runtime_checkable
class ClonesVoices(Protocol):
    """An engine that makes voices from recordings."""

    def clones(self, model: str) -> bool:
        """True if this model (a catalogue id of the engine) clones."""
        ...

    async def clone(self, model: str, samples: Samples, sample_rate: int) -> bytes:
        """Makes what `SpeakRequest.latents` carries from a recording of one speaker.

        The bytes are safetensors: kept per tenant, and never executed when read.

        Raises:
            MediaError: There is no speech in the recording.
        """
        ...
