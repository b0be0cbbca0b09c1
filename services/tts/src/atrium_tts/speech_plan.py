"""Settles a speech before any work: its voice, language, encoding, sentences and speeds.

`servicer.py` calls this first, so that whatever can't be done is refused while nothing is
charged; `speech.py` carries the plan out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from atrium_common.errors import InvalidArgument, NotFound
from atrium_tts.domain import SpeakRequest, SpeechInfo, SpeechJob, Utterance, Voice
from atrium_tts.encoding import Encoding, settle
from atrium_tts.engines.base import SpeechEngine
from atrium_tts.engines.router import EngineRouter
from atrium_tts.text import plan_speech
from atrium_tts.voices import VoiceStore

MIN_SPEED, MAX_SPEED = 0.25, 4.0
"""What the request's speed and SSML's rate may come to together."""

SECONDS_PER_CHARACTER = 0.15
"""Of audio at speed 1, an upper bound."""

_MARGIN = timedelta(seconds=2)
_INLINE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One utterance with what the engine is asked for it.

    Attributes:
        utterance: What is said, and the silence around it.
        request: For the engine.
        stretch: Tempo that is left to make, 1 for none.
    """

    utterance: Utterance
    request: SpeakRequest
    stretch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechPlan:
    """A speech that can be carried out.

    Attributes:
        job: What was asked for.
        engine: Who speaks.
        model_digest: SHA-256 of the model's weights, or ``""``.
        voice: Id of the voice.
        encoding: How the audio leaves.
        sample_rate: Samples per second of what the engine gives.
        lines: The utterances, in order; at least one.
    """

    job: SpeechJob
    engine: SpeechEngine
    model_digest: str
    voice: str
    encoding: Encoding
    sample_rate: int
    lines: Sequence[Line]

    @property
    def cost(self) -> float:
        """Characters, for the fair order."""
        return float(max(1, sum(line.utterance.characters for line in self.lines)))

    @property
    def info(self) -> SpeechInfo:
        """What is known before the first audio."""
        return SpeechInfo(
            model=self.job.model,
            voice=self.voice,
            format=self.encoding.format,
            sample_rate=self.encoding.sample_rate,
            content_type=self.encoding.content_type,
            sentences=len(self.lines),
        )


class Planner:
    """Makes plans for the engines' models and the tenants' voices."""

    def __init__(self, engines: EngineRouter, voices: VoiceStore) -> None:
        self._engines = engines
        self._voices = voices

    async def plan(self, job: SpeechJob, *, tenant: str) -> SpeechPlan:
        """Settles a job.

        Raises:
            NotFound: There is no such voice for this tenant and model.
            InvalidArgument: The model, voice or format does not do it; `field` names what.
            Unavailable: The model can't be loaded.
        """
        engine = self._engines.engine_of(job.model)
        digest = usable_digest(engine, job.model)
        encoding = settle(
            job.format,
            sample_rate=job.sample_rate,
            bit_rate=job.bit_rate,
            own_rate=engine.sample_rate(job.model),
        )
        spoken = engine.languages(job.model)
        asked = match_language(job.language, spoken, field="language") if job.language else ""
        voice, latents = await self._voice(job, engine, asked, tenant=tenant)
        base = SpeakRequest(
            model=job.model,
            voice=voice,
            latents=latents,
            text=job.input,
            language=asked or _own_language(voice, spoken),
            seed=job.seed,
            temperature=job.temperature,
            instructions=job.instructions,
        )
        engine.check(base)
        utterances = await _utterances(job, base.language, whole=not engine.sentencewise)
        return SpeechPlan(
            job=job,
            engine=engine,
            model_digest=digest,
            voice=voice.id,
            encoding=encoding,
            sample_rate=engine.sample_rate(job.model),
            lines=_lines(job, base, utterances, engine),
        )

    async def _voice(
        self, job: SpeechJob, engine: SpeechEngine, language: str, *, tenant: str
    ) -> tuple[Voice, bytes | None]:
        """Finds the voice by id, then by alias, then among the tenant's own."""
        built_in = [voice for voice in engine.voices() if job.model in voice.models]
        if not job.voice:
            return default_voice(built_in, language), None
        for voice in built_in:
            if job.voice == voice.id:
                return voice, None
        for voice in built_in:
            if job.voice in voice.aliases:
                return voice, None
        cloned = await self._voices.find(tenant, job.voice)
        if cloned is None or job.model not in cloned.voice.models:
            raise NotFound(
                f"{job.model} has no voice {job.voice!r}.", reason="VOICE_NOT_FOUND", field="voice"
            )
        return cloned.voice, cloned.latents


def upper_bound(job: SpeechJob) -> timedelta:
    """Returns an upper bound of the audio that a job gives; what admission reserves.

    SSML's pauses and rates are not read for this: where they make it longer, the
    reservation grows while the speech is made.
    """
    seconds = len(job.input) * SECONDS_PER_CHARACTER / job.speed
    return timedelta(seconds=seconds) + _MARGIN


def match_language(asked: str, spoken: Sequence[str], *, field: str) -> str:
    """Finds the tag of `spoken` that a BCP 47 tag means.

    The same one; else a regional one of the language that was asked for ("en": "en-us");
    else the language without its region ("de-at": "de").

    Raises:
        InvalidArgument: There is none.
    """
    wanted = asked.lower()
    by_tag = {tag.lower(): tag for tag in reversed(spoken)}
    if wanted in by_tag:
        return by_tag[wanted]
    for tag in spoken:
        if tag.lower().startswith(f"{wanted}-"):
            return tag
    while "-" in wanted:
        wanted = wanted.rpartition("-")[0]
        if wanted in by_tag:
            return by_tag[wanted]
    raise InvalidArgument(
        f"The language {asked!r} is not spoken; there are {', '.join(spoken)}.",
        reason="LANGUAGE_UNSUPPORTED",
        field=field,
    )


def speaks(voice: Voice, language: str) -> bool:
    """Tells whether a voice speaks a language well, or a regional form of it.

    A voice whose languages were left open speaks all of its model's.
    """
    if not voice.languages:
        return True
    try:
        match_language(language, voice.languages, field="language")
    except InvalidArgument:
        return False
    return True


def default_voice(voices: Sequence[Voice], language: str) -> Voice:
    """Returns the first voice for the language, or the first of all.

    Raises:
        NotFound: There are no voices.
    """
    if not voices:
        raise NotFound("The model has no voice.", reason="VOICE_NOT_FOUND", field="voice")
    if not language:
        return voices[0]
    return next((voice for voice in voices if speaks(voice, language)), voices[0])


def _own_language(voice: Voice, spoken: Sequence[str]) -> str:
    for language in voice.languages:
        try:
            return match_language(language, spoken, field="voice")
        except InvalidArgument:
            continue
    return spoken[0]


def usable_digest(engine: SpeechEngine, model: str) -> str:
    """Returns the SHA-256 of a model's weights, or ``""``.

    A model that is not loaded passes: its first use loads it.

    Raises:
        NotFound: The engine does not serve it.
        Unavailable: It has failed, or the engine is closed.
    """
    engine.check_ready(model)
    return next((info.digest for info in engine.models() if info.id == model), "")


async def _utterances(job: SpeechJob, language: str, *, whole: bool) -> Sequence[Utterance]:
    if len(job.input) <= _INLINE_CHARACTERS:
        return plan_speech(job.input, ssml=job.ssml, language=language, whole=whole)
    return await asyncio.to_thread(  # long enough to hold up the loop
        plan_speech, job.input, ssml=job.ssml, language=language, whole=whole
    )


def _lines(
    job: SpeechJob, base: SpeakRequest, utterances: Sequence[Utterance], engine: SpeechEngine
) -> tuple[Line, ...]:
    spoken = engine.languages(job.model)
    slowest, fastest = engine.speeds(job.model)
    lines: list[Line] = []
    for utterance in utterances:
        language = base.language
        if utterance.language:
            language = match_language(utterance.language, spoken, field="ssml")
        speed = min(max(job.speed * utterance.rate, MIN_SPEED), MAX_SPEED)
        own = min(max(speed, slowest), fastest)
        request = replace(base, text=utterance.text, language=language, speed=own)
        lines.append(Line(utterance=utterance, request=request, stretch=speed / own))
    return tuple(lines)
