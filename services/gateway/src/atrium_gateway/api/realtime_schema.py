"""What a live transcription session takes: OpenAI's client events, each field checked.

`realtime_session.py` reads events with `read_event`; a field that is not here is
refused by name.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from atrium_common.errors import InvalidArgument
from atrium_gateway.api.audio_schema import Hotwords, ModelName
from atrium_gateway.api.decode import decode

Language = Annotated[str, Meta(pattern="^([a-z]{2}|yue)?$")]
LOGPROBS = "item.input_audio_transcription.logprobs"


class Pcm(Struct, tag_field="type", tag="audio/pcm", forbid_unknown_fields=True, frozen=True):
    """16-bit little-endian mono samples; OpenAI takes 24000 a second alone."""

    rate: Annotated[int, Meta(ge=8000, le=48000)] = 24000


class Pcmu(Struct, tag_field="type", tag="audio/pcmu", forbid_unknown_fields=True, frozen=True):
    """G.711 µ-law, 8000 samples a second."""


class Pcma(Struct, tag_field="type", tag="audio/pcma", forbid_unknown_fields=True, frozen=True):
    """G.711 A-law, 8000 samples a second."""


Format = Pcm | Pcmu | Pcma


class ServerVad(
    Struct, tag_field="type", tag="server_vad", forbid_unknown_fields=True, frozen=True
):
    """Silence ends a turn. `threshold` and `prefix_padding_ms` only as they are."""

    silence_duration_ms: Annotated[int, Meta(ge=100, le=5000)] | None = 500
    threshold: float | None = 0.5
    prefix_padding_ms: int | None = 300
    idle_timeout_ms: None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class TranscriptionInput(Struct, forbid_unknown_fields=True, kw_only=True):
    """What decides the text; a field that is not given stays as it was."""

    model: ModelName | UnsetType | None = UNSET
    language: Language | UnsetType | None = UNSET
    prompt: str | UnsetType | None = UNSET
    keywords: Hotwords | UnsetType | None = UNSET


class AudioInput(Struct, forbid_unknown_fields=True, kw_only=True):
    """`session.audio.input`; a field that is not given stays as it was."""

    format: Format | UnsetType = UNSET
    noise_reduction: UnsetType | None = UNSET
    transcription: TranscriptionInput | UnsetType = UNSET
    turn_detection: ServerVad | UnsetType | None = UNSET


class AudioBlock(Struct, forbid_unknown_fields=True):
    """`session.audio`."""

    input: AudioInput | UnsetType = UNSET


class SessionInput(Struct, forbid_unknown_fields=True, kw_only=True):
    """`session` of a `session.update`."""

    type: Literal["transcription"]
    audio: AudioBlock | UnsetType = UNSET
    include: list[Literal["item.input_audio_transcription.logprobs"]] | UnsetType | None = UNSET


class _Event(Struct, forbid_unknown_fields=True, kw_only=True):
    type: str
    event_id: Annotated[str, Meta(max_length=512)] | None = None


class SessionUpdate(_Event, kw_only=True):
    """Changes the session from the audio that follows."""

    session: SessionInput


class Append(_Event, kw_only=True):
    """Audio, in base64."""

    audio: bytes


class Commit(_Event, kw_only=True):
    """The speaker's turn is over."""


class Clear(_Event, kw_only=True):
    """What was said in this turn is to be forgotten."""


ClientEvent = SessionUpdate | Append | Commit | Clear

_EVENTS: dict[str, type[SessionUpdate | Append | Commit | Clear]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": Append,
    "input_audio_buffer.commit": Commit,
    "input_audio_buffer.clear": Clear,
}
CONVERSATION_EVENTS = frozenset(
    {
        "conversation.item.create",
        "conversation.item.delete",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "output_audio_buffer.clear",
        "response.cancel",
        "response.create",
    }
)
"""Events that OpenAI's client knows and a transcription session has no use for."""


class EventHead(Struct):
    """What every client event has."""

    type: str = ""
    event_id: str | None = None


def read_head(text: str) -> EventHead:
    """Reads type and id of an event alone.

    Raises:
        InvalidArgument: It is no JSON object, or its type or id is no text.
    """
    return decode(text.encode(), EventHead)


def read_event(text: str, kind: str) -> ClientEvent:
    """Reads an event of a type, with all its fields.

    Raises:
        InvalidArgument: No such event, or a field is unknown or wrong; names it.
    """
    schema = _EVENTS.get(kind)
    if schema is None:
        raise _unknown(kind)
    event = decode(text.encode(), schema)
    if isinstance(event, SessionUpdate):
        _check(event.session)
    return event


def _unknown(kind: str) -> InvalidArgument:
    if kind in CONVERSATION_EVENTS:
        return InvalidArgument(
            f"'{kind}' is not offered: this is a transcription session.",
            reason="UNSUPPORTED_EVENT",
            field="type",
        )
    if kind == "transcription_session.update":
        return InvalidArgument(
            "'transcription_session.update' belongs to the beta protocol; send "
            "'session.update' with a session of type 'transcription'.",
            reason="UNSUPPORTED_EVENT",
            field="type",
        )
    known = ", ".join(f"'{name}'" for name in _EVENTS)
    return InvalidArgument(
        f"Invalid value: '{kind[:64]}'. Supported values are: {known}.",
        reason="INVALID_VALUE",
        field="type",
    )


def _check(session: SessionInput) -> None:
    """Refuses values of turn detection that would ask for what is not offered."""
    if session.audio is UNSET or session.audio.input is UNSET:
        return
    vad = session.audio.input.turn_detection
    if vad is UNSET or vad is None:
        return
    path = "session.audio.input.turn_detection"
    for name, offered in (("threshold", 0.5), ("prefix_padding_ms", 300)):
        if getattr(vad, name) not in (None, offered):
            raise InvalidArgument(
                f"Invalid value for '{path}.{name}': only {offered} is offered.",
                reason="INVALID_VALUE",
                field=f"{path}.{name}",
            )
    for name in ("create_response", "interrupt_response"):
        if getattr(vad, name):
            raise InvalidArgument(
                f"Invalid value for '{path}.{name}': a transcription session gives no responses.",
                reason="INVALID_VALUE",
                field=f"{path}.{name}",
            )


ENCODER = msgspec.json.Encoder()
