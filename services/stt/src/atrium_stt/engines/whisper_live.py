"""Whisper for one live speaker, in the device thread; `faster_whisper.py` opens it.

Whisper was trained on windows of 30 s, and most of the work for a short utterance goes into
the empty rest of the window. Here the window ends some seconds behind the speech, which makes
encoding three to ten times faster. The price is that Whisper says a sentence twice now and
then (2 of 24 sentences with 2 s of room, none with 8 s). So the final decoding has more room,
and one that repeats itself or fails Whisper's own checks is done again on the whole window,
with rising temperatures. A draft is cut where it repeats itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import ctranslate2
import faster_whisper.transcribe as fw  # type: ignore[import-untyped]
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer  # type: ignore[import-untyped]

from atrium_common.work import DeviceThread
from atrium_stt.domain import LiveJob, Segment, Word
from atrium_stt.engines.live import Heard, Samples
from atrium_stt.engines.segments import SILENCE_PROBABILITY, WORST_COMPRESSION_RATIO, WORST_LOGPROB
from atrium_stt.engines.silero import SileroListener
from atrium_stt.engines.spelling import repetition, split_words
from atrium_stt.recording import SAMPLE_RATE

_WINDOW_FRAMES = 3000
_HOP = 160
_DRAFT_ROOM = 200
_FINAL_ROOM = 800
"""Empty frames, of 10 ms, behind the speech."""

# faster-whisper's defaults.
_BEFORE_WORDS = "\"'\u201c\u00bf([{-"
_BEHIND_WORDS = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001"

_RETRY_TEMPERATURES = (0.0, 0.4, 0.8)
_BEST_OF = 5
_CLEAR_LANGUAGE = 0.5
_CONTEXT_TOKENS = 223
_MAX_TOKENS = 448
_TOKENS_PER_SECOND = 12
_TOKENS_AT_LEAST = 16
_FRESH_START_TEMPERATURE = 0.5
"""A text decoded at more than this is no context for the next, as in OpenAI's code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoding:
    """What one pass of the decoder gave after the stable text."""

    tokens: list[int]
    text: str
    logprob: float
    no_speech: float
    compression_ratio: float
    temperature: float

    @property
    def holds(self) -> bool:
        """Whether it passes Whisper's own checks."""
        return self.compression_ratio <= WORST_COMPRESSION_RATIO and self.logprob >= WORST_LOGPROB

    @property
    def is_silence(self) -> bool:
        """Whether Whisper's own rule calls it silence."""
        return self.no_speech > SILENCE_PROBABILITY and self.logprob < WORST_LOGPROB


class WhisperLiveTranscriber:
    """Listens to one speaker with a model that others use too."""

    def __init__(self, model: WhisperModel, thread: DeviceThread, job: LiveJob) -> None:
        """Wraps a model.

        Args:
            model: The loaded model.
            thread: The device's; every decoding runs in it.
            job: What to do; its prompt and hotwords fit into half of Whisper's context.
        """
        self._model = model
        self._thread = thread
        self._job = job.transcription
        self._vad = SileroListener()
        self._language = self._known_language()
        hotwords = " ".join(self._job.hotwords)
        self._hotwords = self._encoded(f" {hotwords}") if hotwords else []
        self._context = self._encoded(f" {self._job.prompt}") if self._job.prompt else []

    def probabilities(self, samples: Samples) -> Sequence[float]:
        """Asks silero."""
        return self._vad.probabilities(samples)

    async def draft(self, samples: Samples, *, stable: str) -> Sequence[str]:
        """Decodes greedily, in a window that is hardly longer than the speech."""
        return await self._thread.call(self._draft, samples, stable)

    async def transcribe(self, samples: Samples, *, stable: str) -> Heard | None:
        """Decodes with the job's beams and temperature."""
        return await self._thread.call(self._transcribe, samples, stable)

    def _draft(self, samples: Samples, stable: str) -> Sequence[str]:
        encoded = self._encode(samples, _DRAFT_ROOM)
        language, _ = self._language or self._detected(encoded)
        tokenizer = self._tokenizer(language)
        found = self._decode(encoded, tokenizer, samples, stable, temperature=0.0, beams=1)
        if found.is_silence or not found.holds:
            return ()
        before, words = split_words(stable, language), split_words(found.text, language)
        again = repetition([*before, *words])
        return words if again is None else words[: max(0, again - len(before))]

    def _transcribe(self, samples: Samples, stable: str) -> Heard | None:
        encoded = self._encode(samples, _FINAL_ROOM)
        language, probability = self._settled(encoded)
        tokenizer = self._tokenizer(language)
        fixed = self._job.temperature
        found = self._decode(encoded, tokenizer, samples, stable, temperature=fixed or 0.0)
        holds = found.holds and repetition(split_words(stable + found.text, language)) is None
        if not holds and not found.is_silence and fixed is None:
            encoded = self._encode(samples, _WINDOW_FRAMES)
            found = self._best(encoded, tokenizer, samples, stable)
        text = stable + found.text
        if not text.strip() or (found.is_silence and not stable):
            return None
        segment = self._segment(encoded, tokenizer, samples, stable, found)
        if self._job.condition_on_previous_text:
            fresh = found.temperature > _FRESH_START_TEMPERATURE
            self._context = [] if fresh else [*self._context, *segment.tokens][-_CONTEXT_TOKENS:]
        return Heard(segment=segment, language=language, language_probability=probability)

    def _best(
        self,
        encoded: ctranslate2.StorageView,
        tokenizer: Tokenizer,
        samples: Samples,
        stable: str,
    ) -> _Decoding:
        """Raises the temperature until the checks hold; else the likeliest that was found."""
        tried: list[_Decoding] = []
        for temperature in _RETRY_TEMPERATURES:
            found = self._decode(encoded, tokenizer, samples, stable, temperature=temperature)
            if found.holds or found.is_silence:
                return found
            tried.append(found)
        calm = [found for found in tried if found.compression_ratio <= WORST_COMPRESSION_RATIO]
        return max(calm or tried, key=lambda found: found.logprob)

    def _encode(self, samples: Samples, room: int) -> ctranslate2.StorageView:
        """Encodes speech with `room` frames of nothing behind it, at most a window in all."""
        features = self._model.feature_extractor(samples)
        # The encoder halves the frames, so they are even.
        frames = min(_WINDOW_FRAMES, (len(samples) // _HOP + room + 1) // 2 * 2)
        return self._model.encode(fw.pad_or_trim(features, frames))

    def _decode(
        self,
        encoded: ctranslate2.StorageView,
        tokenizer: Tokenizer,
        samples: Samples,
        stable: str,
        *,
        temperature: float,
        beams: int | None = None,
    ) -> _Decoding:
        prompt = self._prompt(tokenizer, stable)
        longest = _TOKENS_AT_LEAST + int(_TOKENS_PER_SECOND * len(samples) / SAMPLE_RATE)
        sampling = (
            {"beam_size": 1, "num_hypotheses": _BEST_OF, "sampling_topk": 0}
            if temperature
            else {"beam_size": beams or self._job.beam_size}
        )
        result = self._model.model.generate(
            encoded,
            [prompt],
            max_length=min(_MAX_TOKENS, len(prompt) + longest),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=not stable,  # behind given text, nothing more is an answer
            suppress_tokens=fw.get_suppressed_tokens(tokenizer, [-1]),
            sampling_temperature=temperature or 1.0,
            **sampling,
        )[0]
        # CTranslate2 gives the stable text's tokens back in front of its own.
        given = len(tokenizer.encode(stable)) if stable else 0
        tokens = [token for token in result.sequences_ids[0][given:] if token < tokenizer.eot]
        text = tokenizer.decode(tokens)
        count = len(result.sequences_ids[0])
        return _Decoding(
            tokens=tokens,
            text=text,
            logprob=result.scores[0] * count / (count + 1) if count else 0.0,
            no_speech=float(result.no_speech_prob),
            compression_ratio=fw.get_compression_ratio((stable + text).strip() or " "),
            temperature=temperature,
        )

    def _prompt(self, tokenizer: Tokenizer, stable: str) -> list[int]:
        room = _CONTEXT_TOKENS - len(self._hotwords)
        context = self._context[-room:] if room > 0 else []
        before = [*self._hotwords, *context]
        return [
            *([tokenizer.sot_prev, *before] if before else []),
            *tokenizer.sot_sequence,
            tokenizer.no_timestamps,
            *(tokenizer.encode(stable) if stable else []),
        ]

    def _segment(
        self,
        encoded: ctranslate2.StorageView,
        tokenizer: Tokenizer,
        samples: Samples,
        stable: str,
        found: _Decoding,
    ) -> Segment:
        tokens = [*(tokenizer.encode(stable) if stable else []), *found.tokens]
        logprob = found.logprob
        words: tuple[Word, ...] = ()
        if stable or self._job.word_timestamps:
            frames = min(_WINDOW_FRAMES, len(samples) // _HOP)
            aligned = self._model.find_alignment(tokenizer, [tokens], encoded, frames)[0]
            if stable and aligned:  # the decoder's own figure knows the rest alone
                logprob = _mean_logprob(aligned)
            if self._job.word_timestamps:
                words = _words(aligned, len(samples) / SAMPLE_RATE)
        return Segment(
            index=0,
            start=timedelta(),
            end=timedelta(seconds=len(samples) / SAMPLE_RATE),
            text=stable + found.text,
            words=words,
            average_logprob=float(logprob),
            no_speech_probability=found.no_speech,
            compression_ratio=float(found.compression_ratio),
            temperature=found.temperature,
            tokens=tuple(tokens),
        )

    def _known_language(self) -> tuple[str, float] | None:
        if not self._model.model.is_multilingual:
            return "en", 1.0
        return (self._job.language, 1.0) if self._job.language else None

    def _detected(self, encoded: ctranslate2.StorageView) -> tuple[str, float]:
        token, probability = self._model.model.detect_language(encoded)[0][0]
        return token[2:-2], float(probability)

    def _settled(self, encoded: ctranslate2.StorageView) -> tuple[str, float]:
        """The language of this and, once it is clear, of all that follows."""
        if self._language is not None:
            return self._language
        found = self._detected(encoded)
        if found[1] >= _CLEAR_LANGUAGE:
            self._language = found
        return found

    def _tokenizer(self, language: str) -> Tokenizer:
        return Tokenizer(
            self._model.hf_tokenizer,
            self._model.model.is_multilingual,
            task=str(self._job.task),
            language=language,
        )

    def _encoded(self, text: str) -> list[int]:
        return list(self._model.hf_tokenizer.encode(text, add_special_tokens=False).ids)


def _mean_logprob(aligned: Sequence[dict[str, object]]) -> float:
    """Of tokens, as far as the mean probability of each word's tokens tells."""
    count = total = 0.0
    for word in aligned:
        number = len(word["tokens"])  # type: ignore[arg-type]
        count += number
        total += number * math.log(max(float(word["probability"]), 1e-10))  # type: ignore[arg-type]
    return total / count if count else 0.0


def _words(aligned: list[dict[str, object]], length: float) -> tuple[Word, ...]:
    fw.merge_punctuations(aligned, _BEFORE_WORDS, _BEHIND_WORDS)
    return tuple(
        Word(
            start=_time(word["start"], length),
            end=_time(word["end"], length),
            text=str(word["word"]),
            probability=float(word["probability"]),  # type: ignore[arg-type]
        )
        for word in aligned
        if word["word"]
    )


def _time(seconds: object, length: float) -> timedelta:
    return timedelta(seconds=round(min(float(seconds), length), 3))  # type: ignore[arg-type]
