"""What both speech endpoints share: the job, its bound, and audio that leaves as it is made."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from urllib.parse import quote

import structlog

from atrium_common.domain import Capability, Usage
from atrium_common.errors import AtriumError, InvalidArgument, Unavailable
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.auth.principal import Principal
from atrium_gateway.pipeline import Job
from atrium_gateway.ratelimit import LimitView, limit_headers
from atrium_gateway.upstreams.synthesis import Info, Speech, Step
from atrium_gateway.upstreams.tts import SYNTHESIZE

logger = structlog.get_logger(__name__)

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


class AudioBody:
    """A file that leaves while it is made.

    Used as a context manager: an error before the first byte leaves the block, so that it
    becomes an HTTP status. A later one leaves it as well, after it is logged: the answer
    is never completed, the server closes the connection in its midst, and no client takes
    what it has for the whole file.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._open = False

    async def send(self, piece: bytes, info: Info | None, limits: Sequence[LimitView]) -> None:
        """Sends the next piece at once; with the first one go status and headers."""
        if not self._open:
            self._open = True
            known = _known(info)
            headers = {**audio_headers(known), **limit_headers(limits)}
            await self._exchange.start(content_type=known.content_type, headers=headers)
        await self._exchange.write(piece)

    async def close(self) -> None:
        """Completes the answer.

        Raises:
            Unavailable: There was no audio.
        """
        if not self._open:
            raise Unavailable("The service gave no audio.")
        await self._exchange.write(b"", last=True)

    async def __aenter__(self) -> "AudioBody":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._open or not isinstance(error, Exception):
            return
        request_id = self._exchange.record.request_id
        if isinstance(error, AtriumError):
            logger.warning("speech broke off", request_id=request_id, reason=error.reason)
        else:
            logger.error("unhandled exception", request_id=request_id, exc_info=error)


async def send_audio(exchange: Exchange, principal: Principal, job: Job[Step]) -> None:
    """Answers with the file itself."""
    async with AudioBody(exchange) as body:
        info: Info | None = None
        async with exchange.gateway.pipeline.run(
            principal, job, request_id=exchange.record.request_id
        ) as run:
            async for step in run:
                if isinstance(step, bytes):
                    await body.send(step, info, run.reservation.limits)
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
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "x-atrium-model": info.model,
        "x-atrium-voice": quote(info.voice, safe=_ASCII),
        "x-atrium-sample-rate": str(info.sample_rate),
    }
