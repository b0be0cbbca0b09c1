"""What both speech endpoints share: the job, its bound, and audio that leaves as it is made."""

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote

from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument, Unavailable
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.file_body import FileBody
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import limit_headers
from atrium_gateway.upstreams.synthesis import Info, Speech, Step
from atrium_gateway.upstreams.tts import SYNTHESIZE

CEILING = 100_000
"""Characters that no service takes; the service itself refuses from its own limit on, but
a megabyte of text should not ask for a reservation first."""
SECONDS_PER_CHARACTER = 0.15
"""Slow speech; the service reserves by the same formula for direct callers. SSML's pauses
and rates are not read for it."""
MARGIN_SECONDS = 2.0
_ASCII = "".join(chr(code) for code in range(0x20, 0x7F) if code != ord("%"))


def resolve(exchange: Exchange, name: str) -> str:
    """Finds the model that a request means; gives its id."""
    entry = exchange.gateway.resolve(name, Capability.SPEECH)
    exchange.record.model = entry.id
    return entry.id


def speech_job(exchange: Exchange, speech: Speech, *, field: str) -> Job[Step]:
    """Makes the job of saying a text.

    Args:
        exchange: Whose request it is.
        speech: What to say.
        field: Parameter that the text came in, for errors.

    Raises:
        InvalidArgument: The text is longer than any service takes.
    """
    if len(speech.input) > CEILING:
        raise InvalidArgument(
            f"The text has {len(speech.input)} characters, far more than can be spoken at once.",
            reason="TEXT_TOO_LONG",
            field=field,
        )
    estimate = Usage(
        model=speech.model,
        characters=len(speech.input),
        output_audio=length_bound(speech),
        estimated=True,
    )
    return Job(
        capability=Capability.SPEECH,
        model=speech.model,
        method=SYNTHESIZE,
        estimate=estimate,
        call=lambda caller: exchange.gateway.tts.synthesize(speech, caller),
    )


def length_bound(speech: Speech) -> timedelta:
    """About the longest that the audio may last; a longer one grows its reservation."""
    seconds = len(speech.input) * SECONDS_PER_CHARACTER / (speech.speed or 1.0)
    return timedelta(seconds=seconds + MARGIN_SECONDS)


async def send_audio(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    """Answers with the file itself."""
    async with FileBody(exchange) as body:
        info: Info | None = None
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                if isinstance(step, bytes):
                    if not body.is_open:
                        known = _known(info)
                        headers = {**audio_headers(known), **limit_headers(run.reservation.limits)}
                        await body.open(content_type=known.content_type, headers=headers)
                    await body.send(step)
                elif isinstance(step, Info):
                    info = step
        await body.close()


def _known(info: Info | None) -> Info:
    if info is None:
        raise Unavailable("The service gave audio without saying what it is.")
    return info


def audio_headers(info: Info) -> Mapping[str, str]:
    """Tells what an audio file can't: who speaks. Names beyond ASCII are percent-encoded."""
    return {
        "x-atrium-model": info.model,
        "x-atrium-voice": quote(info.voice, safe=_ASCII),
        "x-atrium-sample-rate": str(info.sample_rate),
    }
