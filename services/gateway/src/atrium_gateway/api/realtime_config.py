"""How a live transcription session is set up, and what an update makes of it."""

from datetime import timedelta
from typing import Any

from msgspec import UNSET, Struct, structs

from atrium_common.errors import InvalidArgument
from atrium_gateway.api.realtime_schema import (
    LOGPROBS,
    Format,
    Pcm,
    Pcma,
    Pcmu,
    ServerVad,
    SessionInput,
    TranscriptionInput,
)
from atrium_gateway.upstreams.speech import LiveSpeech, Recording

_G711_RATE = 8000
_MODEL = "session.audio.input.transcription.model"


class SessionConfig(Struct, frozen=True, kw_only=True):
    """Everything that decides a session's events.

    Attributes:
        model: The model as the client names it.
        model_id: Its catalogue id.
        turn_detection: ``None`` if the client says where a turn ends.
        logprobs: Give the log probabilities of words.
    """

    model: str
    model_id: str
    language: str = ""
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    format: Format = Pcm()
    turn_detection: ServerVad | None = ServerVad()
    logprobs: bool = False

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio that comes in."""
        return self.format.rate if isinstance(self.format, Pcm) else _G711_RATE

    def speech(self) -> LiveSpeech:
        """What the service is asked for."""
        vad = self.turn_detection
        silence = vad.silence_duration_ms if vad else None
        return LiveSpeech(
            recording=Recording(
                model=self.model_id,
                language=self.language,
                prompt=self.prompt,
                hotwords=self.keywords,
                word_timestamps=self.logprobs,
            ),
            sample_rate=self.sample_rate,
            end_silence=None if silence is None else timedelta(milliseconds=silence),
        )

    def updated(self, change: SessionInput) -> "SessionConfig":
        """Gives the set-up after an update, all but the model.

        Raises:
            InvalidArgument: The model is taken away.
        """
        new: dict[str, Any] = {}
        if change.include is not UNSET:
            new["logprobs"] = bool(change.include)
        if change.audio is not UNSET and change.audio.input is not UNSET:
            given = change.audio.input
            if given.format is not UNSET:
                new["format"] = given.format
            if given.turn_detection is not UNSET:
                new["turn_detection"] = given.turn_detection
            if given.transcription is not UNSET:
                new |= _text(given.transcription)
        return structs.replace(self, **new)

    def described(self, session_id: str, expires_at: int) -> dict[str, Any]:
        """Gives the session as `session.created` and `session.updated` show it."""
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": expires_at,
            "include": [LOGPROBS] if self.logprobs else None,
            "audio": {
                "input": {
                    "format": self.format,
                    "noise_reduction": None,
                    "transcription": {
                        "model": self.model,
                        "language": self.language or None,
                        "prompt": self.prompt or None,
                        "keywords": self.keywords or None,
                    },
                    "turn_detection": self.turn_detection,
                }
            },
        }


def wanted_model(change: SessionInput) -> str | None:
    """The model that an update names, if it names one.

    Raises:
        InvalidArgument: It is ``null``.
    """
    if change.audio is UNSET or change.audio.input is UNSET:
        return None
    given = change.audio.input.transcription
    if given is UNSET or given.model is UNSET:
        return None
    if given.model is None:
        raise InvalidArgument(
            "A transcription session needs a model.", reason="INVALID_VALUE", field=_MODEL
        )
    return given.model


def model_is_set(asked: str) -> InvalidArgument:
    """The refusal to change the model of a session that has heard something."""
    return InvalidArgument(
        f"The model can't be changed to '{asked}' once audio has been sent; open another session.",
        reason="INVALID_VALUE",
        field=_MODEL,
    )


def to_pcm(format: Format, data: bytes) -> bytes:
    """Gives audio as 16-bit little-endian samples."""
    if isinstance(format, Pcm):
        return data
    table = _MU_LAW if isinstance(format, Pcmu) else _A_LAW
    return b"".join([table[byte] for byte in data])


def _text(given: TranscriptionInput) -> dict[str, Any]:
    new: dict[str, Any] = {}
    if given.language is not UNSET:
        new["language"] = given.language or ""
    if given.prompt is not UNSET:
        new["prompt"] = given.prompt or ""
    if given.keywords is not UNSET:
        new["keywords"] = tuple(given.keywords or ())
    return new


def _mu_law(byte: int) -> int:
    """One sample of ITU-T G.711, table 2a/2b, on the 16-bit scale."""
    code = ~byte & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def _a_law(byte: int) -> int:
    """One sample of ITU-T G.711, table 1a/1b, on the 16-bit scale."""
    code = byte ^ 0x55
    step, exponent = ((code & 0x0F) << 4) + 8, (code & 0x70) >> 4
    magnitude = step if exponent == 0 else (step + 0x100) << (exponent - 1)
    return magnitude if code & 0x80 else -magnitude


def _samples(decode: Any) -> tuple[bytes, ...]:
    return tuple(decode(byte).to_bytes(2, "little", signed=True) for byte in range(256))


_MU_LAW = _samples(_mu_law)
_A_LAW = _samples(_a_law)
__all__ = ["Pcma", "SessionConfig", "model_is_set", "to_pcm", "wanted_model"]
