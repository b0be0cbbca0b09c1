"""One transcription by faster-whisper, in the device thread; `faster_whisper.py` calls this.

Short recordings go through `WhisperModel.transcribe`, long ones through
`BatchedInferencePipeline`, which decodes without timestamps: a segment is a window, at most
30 s, cut where nobody speaks. (With timestamps it drops what follows a window's last one,
one word in eight in our tests.) It does not raise the temperature when a window decodes
badly; that is done here, by decoding such a window once more on its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice

import faster_whisper.transcribe as fw  # type: ignore[import-untyped]
import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.vad import VadOptions  # type: ignore[import-untyped]

from atrium_common.errors import InvalidArgument
from atrium_common.work import CancelToken
from atrium_stt.domain import Segment, TranscriptionInfo, TranscriptionJob
from atrium_stt.engines.options import FasterWhisperOptions
from atrium_stt.engines.segments import (
    clip,
    failed,
    is_silence,
    of_part,
    restored,
    to_info,
    to_segment,
)
from atrium_stt.engines.speech import (
    WINDOW_SECONDS,
    Part,
    Span,
    batch_vad_options,
    cut,
    find_speech,
    group,
)
from atrium_stt.recording import SAMPLE_RATE, Recording

_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""OpenAI's published order."""

_CONTEXT_TOKENS = 223
"""Half of Whisper's 448 tokens, less one: what prompt and hotwords may take together."""
_HOTWORD_TOKENS = 160
_HOTWORD_TOKENS_WITH_CONTEXT = 60
_LONGEST_RUN = 600 * SAMPLE_RATE


class Transcriber:
    """Transcribes with one loaded model. Not for use from two threads at once."""

    def __init__(self, model: WhisperModel, *, options: FasterWhisperOptions, device: str) -> None:
        """Wraps a model.

        Args:
            model: The loaded model.
            options: The catalogue entry's options.
            device: ``"cpu"`` or ``"cuda"``.
        """
        self._model = model
        self._pipeline = BatchedInferencePipeline(model=model)
        self._options = options
        self._windows = options.windows(device)

    @property
    def model(self) -> WhisperModel:
        """The model that it wraps."""
        return self._model

    @property
    def languages(self) -> Sequence[str]:
        """Languages that the model knows."""
        return tuple(self._model.supported_languages)

    @property
    def translates(self) -> bool:
        """Whether it makes English text of other languages."""
        multilingual: bool = self._model.model.is_multilingual
        return multilingual and self._options.translates is not False

    def verify(self) -> None:
        """Transcribes a tenth of a second of silence."""
        silence = np.zeros(SAMPLE_RATE // 10, np.float32)
        segments, _ = self._model.transcribe(silence, language="en", beam_size=1, temperature=0.0)
        for _ in segments:
            pass

    def run(
        self, job: TranscriptionJob, recording: Recording, token: CancelToken
    ) -> Iterator[TranscriptionInfo | Segment]:
        """Yields the info, then the segments as they are decoded.

        Raises:
            InvalidArgument: The hotwords are too many tokens.
            Cancelled: The caller left while speech was looked for.
        """
        job = self.fit_context(job)
        batched = self._batches(job, recording)
        spans = self._spans(job, recording, token, batched=batched)
        if not spans:
            yield self._silent_info(job, recording)
            return
        if batched:
            results = self._run_batched(job, recording, spans, token)
        else:
            results = self._run_windows(job, recording, spans, token)
        index = 0
        for result in results:
            if isinstance(result, fw.TranscriptionInfo):
                yield to_info(result, recording, spans)
            elif result.text.strip():
                yield to_segment(result, index, recording.duration)
                index += 1

    def fit_context(self, job: TranscriptionJob) -> TranscriptionJob:
        """Cuts the prompt to its last tokens, so that half the window is left for speech.

        Raises:
            InvalidArgument: The hotwords are too many tokens.
        """
        hotwords = self._count(" ".join(job.hotwords)) if job.hotwords else 0
        most = _HOTWORD_TOKENS_WITH_CONTEXT if job.condition_on_previous_text else _HOTWORD_TOKENS
        if hotwords > most:
            raise InvalidArgument(
                f"The hotwords are {hotwords} tokens; with these options at most {most} fit.",
                field="hotwords",
            )
        room = _CONTEXT_TOKENS - hotwords
        if not job.prompt or self._count(job.prompt) <= room:
            return job
        tokenizer = self._model.hf_tokenizer
        tokens = tokenizer.encode(f" {job.prompt.strip()}", add_special_tokens=False).ids
        return replace(job, prompt=tokenizer.decode(tokens[-room:]).lstrip("\ufffd"))

    def _count(self, text: str) -> int:
        return len(self._model.hf_tokenizer.encode(f" {text.strip()}", add_special_tokens=False))

    def _batches(self, job: TranscriptionJob, recording: Recording) -> bool:
        """Whether batches give what the job asks for, and are worth it."""
        return (
            recording.duration > timedelta(seconds=self._options.batch_from_seconds)
            and job.voice_activity_detection
            and not job.condition_on_previous_text
            and not job.temperature
        )

    def _spans(
        self, job: TranscriptionJob, recording: Recording, token: CancelToken, *, batched: bool
    ) -> list[Span]:
        if not job.voice_activity_detection:
            return [Span(0, recording.sample_count)]
        options = batch_vad_options() if batched else VadOptions()
        return find_speech(recording, options, token)

    def _silent_info(self, job: TranscriptionJob, recording: Recording) -> TranscriptionInfo:
        language, probability = job.language, 1.0
        if language is None and self._model.model.is_multilingual:
            head = recording.samples(0, WINDOW_SECONDS * SAMPLE_RATE)
            language, probability, _ = self._model.detect_language(audio=head)
        return TranscriptionInfo(
            language=language or "en",
            language_probability=float(probability),
            duration=recording.duration,
            speech_duration=timedelta(),
        )

    def _run_windows(
        self, job: TranscriptionJob, recording: Recording, spans: list[Span], token: CancelToken
    ) -> Iterator[fw.TranscriptionInfo | fw.Segment]:
        """Window by window; a very long recording in runs that fit into memory."""
        for number, part in enumerate(
            group(cut(recording, spans, longest=_LONGEST_RUN), longest=_LONGEST_RUN)
        ):
            token.raise_if_cancelled()
            segments, info = self._model.transcribe(
                part.samples(recording), **self._arguments(job), **self._sequential(job)
            )
            if number == 0:
                yield info
            last: list[int] = []
            for segment in restored(segments, part.spans, offset=part.offset):
                last = [*last, *segment.tokens][-_CONTEXT_TOKENS:]
                yield segment
            # What Whisper carries from window to window, carried from run to run.
            carried = self._decoded(last) if job.condition_on_previous_text else ""
            job = replace(job, language=info.language, prompt=carried)

    def _run_batched(
        self, job: TranscriptionJob, recording: Recording, spans: list[Span], token: CancelToken
    ) -> Iterator[fw.TranscriptionInfo | fw.Segment]:
        """Several windows at once, in order."""
        parts = iter(group(spans, longest=WINDOW_SECONDS * SAMPLE_RATE))
        started = False
        while batch := list(islice(parts, self._windows)):
            token.raise_if_cancelled()
            first = batch[0].offset
            segments, info = self._pipeline.transcribe(
                np.concatenate([part.samples(recording) for part in batch]),
                **self._arguments(job),
                temperature=0.0,
                without_timestamps=True,
                batch_size=self._windows,
                clip_timestamps=[clip(part, first) for part in batch],
            )
            if not started:
                started = True
                yield info
                job = replace(job, language=info.language)
            decoded = list(segments)
            for part in batch:
                mine = of_part(decoded, part, first)
                token.raise_if_cancelled()
                yield from self._completed(job, recording, part, mine)

    def _completed(
        self,
        job: TranscriptionJob,
        recording: Recording,
        part: Part,
        segments: list[fw.Segment],
    ) -> Iterator[fw.Segment]:
        """Yields a window's segments, decoded again where Whisper's checks say so."""
        heard = [segment for segment in segments if not is_silence(segment)]
        again: Iterable[fw.Segment] = heard
        if job.temperature is None and any(failed(segment) for segment in heard):
            again, _ = self._model.transcribe(
                part.samples(recording), **self._arguments(job), **self._sequential(job)
            )
        yield from restored(again, part.spans, offset=part.offset)

    def _arguments(self, job: TranscriptionJob) -> dict[str, object]:
        """What both ways of faster-whisper are told alike."""
        return {
            "language": job.language,
            "task": str(job.task),
            "beam_size": job.beam_size,
            "initial_prompt": job.prompt or None,
            "hotwords": " ".join(job.hotwords) or None,
            "word_timestamps": job.word_timestamps,
            "vad_filter": False,
        }

    def _sequential(self, job: TranscriptionJob) -> dict[str, object]:
        fixed = job.temperature
        return {
            "temperature": list(_TEMPERATURES) if fixed is None else [fixed],
            "condition_on_previous_text": job.condition_on_previous_text,
        }

    def _decoded(self, tokens: list[int]) -> str:
        text: str = self._model.hf_tokenizer.decode(tokens)
        return text.lstrip("\ufffd")
