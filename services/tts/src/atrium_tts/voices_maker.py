"""Makes voices from recordings. `servicer.py` calls it, step by step, for `CreateVoice`.

What can be refused is refused before the upload; the recording is checked before it takes
the engine's time.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from atrium_common.catalogue import Catalogue
from atrium_common.context import RequestContext, report_usage
from atrium_common.domain import Capability, Usage
from atrium_common.errors import Unimplemented
from atrium_tts.domain import Voice, VoiceOrder
from atrium_tts.engines.base import ClonesVoices
from atrium_tts.engines.router import EngineRouter
from atrium_tts.speech import Speaker
from atrium_tts.speech_plan import SECONDS_PER_CHARACTER, match_language, usable_digest
from atrium_tts.voices import NewVoice, VoiceStore
from atrium_tts.voices_reference import SAMPLE_RATE, Reference, ReferenceLimits, ReferenceReader


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedOrder:
    """A voice that can be made by `model`, a catalogue id."""

    order: VoiceOrder
    model: str


class VoiceMaker:
    """Turns recordings into voices of a tenant."""

    def __init__(
        self,
        engines: EngineRouter,
        catalogue: Catalogue,
        *,
        speaker: Speaker,
        voices: VoiceStore,
        limits: ReferenceLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts the parts together.

        Args:
            engines: The engines.
            catalogue: Resolves models.
            speaker: Gives seats and turns at the engines.
            voices: Keeps the voices.
            limits: What recordings are taken.
            clock: Seconds, for inference time.
        """
        self._engines = engines
        self._catalogue = catalogue
        self._speaker = speaker
        self._voices = voices
        self._reader = ReferenceReader(limits)
        self._clock = clock
        self.limits = limits

    def model(self, name: str) -> str:
        """Returns the id of the model that makes a voice; ``""`` asks for the default.

        Raises:
            NotFound: There is no such model.
            Unimplemented: It does not clone, or none does; the reason is
                ``VOICE_CLONING_UNSUPPORTED``.
        """
        if name:
            asked = [self._catalogue.resolve(name, Capability.SPEECH)]
        else:
            asked = list(self._catalogue.with_capability(Capability.SPEECH))
        for entry in asked:
            if self._cloner(entry.id) is not None:
                return entry.id
        who = asked[0].id if name else "No model"
        does = "does not make" if name else "makes"
        raise Unimplemented(
            f"{who} {does} voices from recordings.",
            reason="VOICE_CLONING_UNSUPPORTED",
            field="config.model",
        )

    async def order(self, model: str, order: VoiceOrder, *, tenant: str) -> CheckedOrder:
        """Refuses what can't be made, before a recording is uploaded.

        Raises:
            NotFound: There is no such model.
            Unimplemented: The model does not clone.
            InvalidArgument: It does not speak the language.
            Conflict: The tenant keeps as many voices as it may.
        """
        found = self.model(model)
        engine = self._engines.engine_of(found)
        usable_digest(engine, found)
        if order.language:
            spoken = engine.languages(found)
            tag = match_language(order.language, spoken, field="config.language")
            order = replace(order, language=tag)
        await self._voices.check_room(tenant)
        return CheckedOrder(order=order, model=found)

    async def read(self, path: Path) -> Reference:
        """Decodes and checks a recording; see `ReferenceReader.read`."""
        return await self._reader.read(path)

    async def make(
        self,
        checked: CheckedOrder,
        reference: Reference,
        *,
        recording_sha256: str,
        caller: RequestContext,
    ) -> tuple[Voice, Usage]:
        """Makes a voice in the engine's turn and keeps it.

        Raises:
            MediaError: There is no speech in the recording.
            Overloaded: The engine's queue is full.
            Conflict: The tenant keeps as many voices as it may.
        """
        latents, usage = await self._clone(checked.model, reference, caller)
        new = NewVoice(
            order=checked.order,
            model=checked.model,
            recording_sha256=recording_sha256,
            latents=latents,
        )
        return await self._voices.create(caller.tenant, new), usage

    async def _clone(
        self, model: str, reference: Reference, caller: RequestContext
    ) -> tuple[bytes, Usage]:
        cloner = self._cloner(model)
        assert cloner is not None  # noqa: S101 - the order was checked
        engine = self._engines.engine_of(model)
        cost = reference.duration.total_seconds() / SECONDS_PER_CHARACTER
        usage = Usage(
            model=model,
            model_digest=usable_digest(engine, model),
            engine=engine.name,
            input_audio=reference.duration,
        )
        async with (
            self._speaker.seat(engine, caller, cost=cost) as seat,
            self._speaker.turn(engine, caller, cost=cost) as turn,
        ):
            begun = self._clock()
            try:
                latents = await cloner.clone(model, reference.samples, SAMPLE_RATE)
            except asyncio.CancelledError:
                report_usage(usage)  # who leaves is charged for what was begun
                raise
            spent = timedelta(seconds=self._clock() - begun)
        waited = seat.queue_time + turn.queue_time
        return latents, replace(usage, queue_time=waited, inference_time=spent)

    def _cloner(self, model: str) -> ClonesVoices | None:
        engine = self._engines.engine_of(model)
        return engine if isinstance(engine, ClonesVoices) and engine.clones(model) else None
