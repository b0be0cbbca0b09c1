"""`atrium.common.v1` messages to and from the domain, so that no service writes it again.

Called by every service's `convert.py`, the usage interceptor, the admission client
and the gateway's upstreams.
"""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from atrium.common.v1 import model_pb2, usage_pb2
from atrium_common.domain import Capability, ModelInfo, ModelState, Usage

_MICROSECOND = timedelta(microseconds=1)
_ZERO = timedelta()
_STATES = {
    ModelState.UNLOADED: model_pb2.MODEL_STATE_UNLOADED,
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}


def duration_to_proto(value: timedelta) -> Duration:
    """Converts to the microsecond."""
    seconds, rest = divmod(value // _MICROSECOND, 1_000_000)
    if seconds < 0 and rest:
        # A Duration's parts share one sign, a timedelta's do not.
        seconds, rest = seconds + 1, rest - 1_000_000
    return Duration(seconds=seconds, nanos=rest * 1_000)


def duration_from_proto(value: Duration) -> timedelta:
    """Converts to the microsecond, cutting finer parts; unset is zero."""
    return timedelta(seconds=value.seconds, microseconds=int(value.nanos / 1_000))


def timestamp_to_proto(value: datetime) -> Timestamp:
    """Converts an aware time."""
    if value.tzinfo is None:
        raise ValueError("a time on the wire needs its zone")
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def timestamp_from_proto(value: Timestamp) -> datetime:
    """Converts to aware UTC."""
    return value.ToDatetime(tzinfo=UTC)


def usage_to_proto(usage: Usage) -> usage_pb2.Usage:
    """Converts; times of zero stay unset."""
    message = usage_pb2.Usage(
        model=usage.model,
        model_digest=usage.model_digest,
        engine=usage.engine,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        characters=usage.characters,
        images=usage.images,
        millimegapixel_steps=usage.millimegapixel_steps,
        pages=usage.pages,
        estimated=usage.estimated,
    )
    # Four sub-messages on every streamed token are dear; most capabilities use two.
    if usage.queue_time:
        message.queue_time.CopyFrom(duration_to_proto(usage.queue_time))
    if usage.inference_time:
        message.inference_time.CopyFrom(duration_to_proto(usage.inference_time))
    if usage.input_audio:
        message.input_audio.CopyFrom(duration_to_proto(usage.input_audio))
    if usage.output_audio:
        message.output_audio.CopyFrom(duration_to_proto(usage.output_audio))
    return message


def usage_in(answer: Message) -> usage_pb2.Usage | None:
    """The usage that an answer tells; ``None`` for a type of answer without one."""
    if "usage" not in answer.DESCRIPTOR.fields_by_name:
        return None
    usage: usage_pb2.Usage = answer.usage  # type: ignore[attr-defined]
    return usage


def usage_from_proto(message: usage_pb2.Usage) -> Usage:
    """Converts."""
    return Usage(
        model=message.model,
        model_digest=message.model_digest,
        engine=message.engine,
        queue_time=_time(message, "queue_time"),
        inference_time=_time(message, "inference_time"),
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cached_input_tokens=message.cached_input_tokens,
        characters=message.characters,
        input_audio=_time(message, "input_audio"),
        output_audio=_time(message, "output_audio"),
        images=message.images,
        millimegapixel_steps=message.millimegapixel_steps,
        pages=message.pages,
        estimated=message.estimated,
    )


def _time(message: usage_pb2.Usage, field: str) -> timedelta:
    return duration_from_proto(getattr(message, field)) if message.HasField(field) else _ZERO  # type: ignore[arg-type]


def model_to_proto(model: ModelInfo) -> model_pb2.Model:
    """Converts."""
    message = model_pb2.Model(
        id=model.id,
        capabilities=[str(capability) for capability in model.capabilities],
        engine=model.engine,
        aliases=model.aliases,
        state=_STATES[model.state],
        digest=model.digest,
        license=model.license,
        context_length=model.context_length,
        embedding_dimensions=model.embedding_dimensions,
        detail=model.detail,
        memory_bytes=model.memory_bytes,
    )
    if model.last_used_at is not None:
        message.last_use_time.CopyFrom(timestamp_to_proto(model.last_used_at))
    if model.verified_at is not None:
        message.verify_time.CopyFrom(timestamp_to_proto(model.verified_at))
    return message


def model_from_proto(message: model_pb2.Model) -> ModelInfo:
    """Converts; capabilities that this version does not know are left out."""
    known = {str(capability) for capability in Capability}
    return ModelInfo(
        id=message.id,
        capabilities=tuple(Capability(name) for name in message.capabilities if name in known),
        engine=message.engine,
        aliases=tuple(message.aliases),
        state=_STATES_BACK.get(message.state, ModelState.UNLOADED),
        digest=message.digest,
        license=message.license,
        context_length=message.context_length,
        embedding_dimensions=message.embedding_dimensions,
        verified_at=timestamp_from_proto(message.verify_time)
        if message.HasField("verify_time")
        else None,
        detail=message.detail,
        memory_bytes=message.memory_bytes,
        last_used_at=timestamp_from_proto(message.last_use_time)
        if message.HasField("last_use_time")
        else None,
    )
