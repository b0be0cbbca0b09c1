"""What all audio endpoints share: the job, and the transcript that its events add up to."""

import math
from dataclasses import dataclass, field

from atrium_common.domain import Capability, Usage
from atrium_common.errors import Unavailable
from atrium_gateway.api.audio_schema import DurationUsage
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.uploads import Upload
from atrium_gateway.pipeline import Job, Run
from atrium_gateway.upstreams.speech import Info, Recording, Segment, Step
from atrium_gateway.upstreams.stt import TRANSCRIBE

TranscriptRun = Run[Step]


@dataclass(slots=True)
class Transcript:
    """What was heard so far."""

    info: Info | None = None
    segments: list[Segment] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The whole text, without the space that it begins with."""
        return "".join(segment.text for segment in self.segments).strip()

    def add(self, step: Step) -> None:
        """Takes the next message."""
        if isinstance(step, Info):
            self.info = step
        elif isinstance(step, Segment):
            self.segments.append(step)

    def known(self) -> Info:
        """The info; raises `Unavailable` if the service ended without it."""
        if self.info is None:
            raise Unavailable("The service gave no answer.")
        return self.info


def transcription_job(exchange: Exchange, recording: Recording, upload: Upload) -> Job[Step]:
    """Makes the job of transcribing an upload."""
    gateway = exchange.gateway
    return Job(
        capability=Capability.TRANSCRIPTION,
        model=recording.model,
        method=TRANSCRIBE,
        estimate=Usage(model=recording.model, input_audio=upload.length_bound(), estimated=True),
        call=lambda caller: gateway.stt.transcribe(recording, upload.file, caller),
    )


def resolve(exchange: Exchange, name: str) -> str:
    """Finds the model that a request means; gives its id."""
    entry = exchange.gateway.resolve(name, Capability.TRANSCRIPTION)
    exchange.record.model = entry.id
    return entry.id


def duration_usage(usage: Usage) -> DurationUsage:
    """Gives usage as OpenAI's audio endpoints do."""
    return DurationUsage(math.ceil(usage.input_audio.total_seconds()))
