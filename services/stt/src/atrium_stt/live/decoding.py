"""The half of a session that decodes: utterances in, segments out. `session.py` runs it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from atrium_stt.domain import (
    FinalSegment,
    LiveJob,
    PartialSegment,
    Segment,
    SpeechDismissed,
)
from atrium_stt.engines.live import Heard, LiveTranscriber
from atrium_stt.live.agreement import LocalAgreement
from atrium_stt.live.endpoint import Utterance, as_time
from atrium_stt.live.outbox import Outbox
from atrium_stt.live.talk import Talk
from atrium_stt.live.turns import Turns
from atrium_stt.recording import SAMPLE_RATE

_DRAFT_EVERY = int(0.8 * SAMPLE_RATE)
"""New sound that makes a draft worth while."""

_REST = 0.5
"""Time that a draft leaves the engine to others, as a share of what it took."""

_AGAIN_SECONDS = 0.1


class Decoder:
    """Decodes one thing at a time: finals in order, drafts in between."""

    def __init__(
        self,
        job: LiveJob,
        transcriber: LiveTranscriber,
        turns: Turns,
        talk: Talk,
        outbox: Outbox,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares to decode; see `LiveSession`."""
        self._partials = job.partial_results
        self._transcriber = transcriber
        self._turns = turns
        self._talk = talk
        self._outbox = outbox
        self._clock = clock
        self._draft = _Draft(-1)
        self._not_before = 0.0

    async def run(self) -> None:
        """Decodes until the talk is over and all of it is decoded."""
        talk = self._talk
        while talk.ended or not talk.over:
            talk.news.clear()
            if talk.ended:
                await self._finish(talk.ended[0])
                talk.decoded()
            elif talk.current is not None and self._is_due(talk.current):
                await self._sketch(talk.current)
            else:
                watching = self._partials and talk.current is not None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_SECONDS if watching else None):
                        await talk.news.wait()

    def _is_due(self, utterance: Utterance) -> bool:
        if not self._partials or self._turns.crowded or self._clock() < self._not_before:
            return False
        return utterance.voiced - self._draft_of(utterance).length >= _DRAFT_EVERY

    def _draft_of(self, utterance: Utterance) -> "_Draft":
        if self._draft.index != utterance.index:
            self._draft = _Draft(utterance.index)
        return self._draft

    async def _sketch(self, utterance: Utterance) -> None:
        """Reports what is heard of an utterance so far, unless it ends meanwhile."""
        draft = self._draft_of(utterance)
        async with self._turns.take(utterance.voiced / SAMPLE_RATE):
            if utterance.ended:
                return
            started = self._clock()
            before, draft.length = draft.length, utterance.voiced
            words = await self._transcriber.draft(
                utterance.samples()[: draft.length], stable=draft.agreement.stable
            )
        now = self._clock()
        self._not_before = now + (now - started) * _REST
        if utterance.ended:
            return
        if draft.update(words):
            # Two drafts agreed on these words, so the sound of the first one holds them.
            utterance.heard_until = before
        if draft.news:
            self._outbox.put(draft.report(utterance))

    async def _finish(self, utterance: Utterance) -> None:
        draft = self._draft_of(utterance)
        async with self._turns.take(utterance.length / SAMPLE_RATE):
            heard = await self._transcriber.transcribe(
                utterance.samples(), stable=draft.agreement.stable
            )
        if heard is None:
            self._outbox.put(SpeechDismissed(index=utterance.index))
        else:
            self._outbox.put(_final(heard, utterance))


class _Draft:
    """What drafts of an utterance said, and what its reader knows of that."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.length = 0
        self.agreement = LocalAgreement()
        self._told = ("", "")

    def update(self, words: Sequence[str]) -> bool:
        before = self.agreement.stable
        self.agreement.add(words)
        return self.agreement.stable != before

    @property
    def news(self) -> bool:
        return (self.agreement.stable, self.agreement.tentative) != self._told

    def report(self, utterance: Utterance) -> PartialSegment:
        stable, tentative = self._told = (self.agreement.stable, self.agreement.tentative)
        segment = Segment(
            index=utterance.index,
            start=as_time(utterance.speech_start),
            end=as_time(utterance.start + self.length),
            text=stable,
            average_logprob=0.0,
            no_speech_probability=0.0,
            compression_ratio=0.0,
            temperature=0.0,
        )
        return PartialSegment(segment=segment, tentative=tentative)


def _final(heard: Heard, utterance: Utterance) -> FinalSegment:
    """Moves a segment from the utterance's time to that of the audio."""
    offset = as_time(utterance.start)
    words = tuple(
        replace(word, start=word.start + offset, end=word.end + offset)
        for word in heard.segment.words
    )
    segment = replace(
        heard.segment,
        index=utterance.index,
        start=as_time(utterance.speech_start),
        end=max(as_time(utterance.speech_end), as_time(utterance.speech_start)),
        words=words,
        seek=int(offset / timedelta(milliseconds=10)),
    )
    return FinalSegment(
        segment=segment,
        language=heard.language,
        language_probability=heard.language_probability,
    )
