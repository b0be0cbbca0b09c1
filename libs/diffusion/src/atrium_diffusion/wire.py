"""`atrium.common.v1`'s picture messages to and from the domain, for both picture services.

Their `convert.py` calls this; ranges are those of the proto's comments. What depends on
the model is checked by the engine's `plan`.
"""

from typing import Protocol, TypeVar

from atrium.common.v1 import image_pb2 as pb
from atrium.common.v1 import usage_pb2
from atrium_common.errors import InvalidArgument
from atrium_common.wire import usage_to_proto
from atrium_diffusion.answer import (
    Answer,
    EncodedPreview,
    PictureChunk,
    PictureEnd,
    PictureStart,
    Withheld,
)
from atrium_diffusion.domain import (
    Denoising,
    LoraUse,
    ModelLimits,
    OutputOptions,
    PictureFormat,
    PreviewOptions,
    SchedulerKind,
    StepTaken,
)
from atrium_diffusion.record import PictureRecord

MAX_STEPS = 150
MAX_GUIDANCE_SCALE = 30.0
MAX_SEED = 2**63 - 1
MAX_LORAS = 8
MAX_LORA_SCALE = 2.0
MAX_PREVIEW_INTERVAL = 50
PREVIEW_SIDES = (32, 512)

_SCHEDULERS = {kind: pb.Scheduler.Value(f"SCHEDULER_{kind.name}") for kind in SchedulerKind}
_SCHEDULERS_BACK = {number: kind for kind, number in _SCHEDULERS.items()}
_FORMATS = {kind: pb.ImageFormat.Value(f"IMAGE_FORMAT_{kind.name}") for kind in PictureFormat}
_FORMATS_BACK = {number: kind for kind, number in _FORMATS.items()}
_WITHHELD = {
    None: pb.WITHHELD_REASON_UNSPECIFIED,
    Withheld.UNSAFE: pb.WITHHELD_REASON_UNSAFE,
}

NumberT = TypeVar("NumberT", int, float)


class AnswerMessage(Protocol):
    """What both services' streamed responses have in common."""

    @property
    def progress(self) -> pb.StepProgress:
        """A picture took a step."""
        ...

    @property
    def preview(self) -> pb.ImagePreview:
        """An early view."""
        ...

    @property
    def start(self) -> pb.ImageStart:
        """A picture is finished."""
        ...

    @property
    def chunk(self) -> pb.ImageChunk:
        """Bytes of the picture."""
        ...

    @property
    def end(self) -> pb.ImageEnd:
        """All bytes of the picture were sent."""
        ...

    @property
    def usage(self) -> usage_pb2.Usage:
        """What was consumed so far."""
        ...


def ranged(value: NumberT, least: NumberT, most: NumberT, field: str) -> NumberT:
    """Returns `value`.

    Raises:
        InvalidArgument: It is out of its range, or NaN; `field` is the one that is given.
    """
    if not least <= value <= most:  # false for NaN
        name = field.rpartition(".")[2]
        raise InvalidArgument(f"{name} is from {least} to {most}.", field=field)
    return value


def denoising_from_proto(message: pb.DenoisingParams, *, field: str = "denoising") -> Denoising:
    """Reads how pictures are denoised; unset fields are ``None``.

    Args:
        message: As the caller sent it.
        field: Name of the message in the request, for refusals.

    Raises:
        InvalidArgument: A value is out of its range; `field` names it.
    """
    return Denoising(
        steps=ranged(message.steps, 1, MAX_STEPS, f"{field}.steps")
        if message.HasField("steps")
        else None,
        guidance_scale=ranged(
            message.guidance_scale, 0.0, MAX_GUIDANCE_SCALE, f"{field}.guidance_scale"
        )
        if message.HasField("guidance_scale")
        else None,
        scheduler=_scheduler(message.scheduler, f"{field}.scheduler"),
        seed=ranged(message.seed, 0, MAX_SEED, f"{field}.seed")
        if message.HasField("seed")
        else None,
        loras=_loras(message, f"{field}.loras"),
        deterministic=message.deterministic,
    )


def denoising_to_proto(denoising: Denoising) -> pb.DenoisingParams:
    """Writes what `denoising_from_proto` reads."""
    return pb.DenoisingParams(
        steps=denoising.steps,
        guidance_scale=denoising.guidance_scale,
        scheduler=scheduler_to_proto(denoising.scheduler),
        seed=denoising.seed,
        loras=[pb.LoraWeight(id=lora.id, scale=lora.scale) for lora in denoising.loras],
        deterministic=denoising.deterministic,
    )


def output_from_proto(message: pb.ImageOutput, *, field: str = "output") -> OutputOptions:
    """Reads how pictures are encoded; see `denoising_from_proto`."""
    if message.format == pb.IMAGE_FORMAT_UNSPECIFIED:
        kind: PictureFormat | None = PictureFormat.PNG
    else:
        kind = _FORMATS_BACK.get(message.format)
    if kind is None:
        raise InvalidArgument(f"There is no format {message.format}.", field=f"{field}.format")
    quality = None
    if message.HasField("quality"):
        if kind is PictureFormat.PNG:
            raise InvalidArgument("quality is for JPEG and WEBP.", field=f"{field}.quality")
        quality = ranged(message.quality, 1, 100, f"{field}.quality")
    if message.embed_record and kind is not PictureFormat.PNG:
        raise InvalidArgument("embed_record is for PNG.", field=f"{field}.embed_record")
    return OutputOptions(format=kind, quality=quality, embed_record=message.embed_record)


def output_to_proto(output: OutputOptions) -> pb.ImageOutput:
    """Writes what `output_from_proto` reads."""
    return pb.ImageOutput(
        format=_FORMATS[output.format],
        quality=output.quality,
        embed_record=output.embed_record,
    )


def preview_from_proto(message: pb.PreviewOptions, *, field: str = "preview") -> PreviewOptions:
    """Reads what is shown on the way; see `denoising_from_proto`."""
    interval = ranged(message.interval, 0, MAX_PREVIEW_INTERVAL, f"{field}.interval")
    if not message.HasField("max_side"):
        return PreviewOptions(interval=interval)
    side = ranged(message.max_side, *PREVIEW_SIDES, f"{field}.max_side")
    return PreviewOptions(interval=interval, max_side=side)


def preview_to_proto(preview: PreviewOptions) -> pb.PreviewOptions:
    """Writes what `preview_from_proto` reads."""
    return pb.PreviewOptions(interval=preview.interval, max_side=preview.max_side)


def scheduler_to_proto(kind: SchedulerKind | None) -> pb.Scheduler.ValueType:
    """Writes a scheduler; ``None`` is UNSPECIFIED."""
    return pb.SCHEDULER_UNSPECIFIED if kind is None else _SCHEDULERS[kind]


def limits_to_proto(limits: ModelLimits) -> pb.ImageModelLimits:
    """Writes what a model takes."""
    return pb.ImageModelLimits(
        model=limits.model,
        native_width=limits.native_width,
        native_height=limits.native_height,
        min_side=limits.min_side,
        max_side=limits.max_side,
        max_pixels=limits.max_pixels,
        default_steps=limits.default_steps,
        default_guidance_scale=limits.default_guidance_scale,
        default_scheduler=scheduler_to_proto(limits.default_scheduler),
        loras=limits.loras,
    )


def record_to_proto(record: PictureRecord) -> pb.ImageRecord:
    """Writes what made a picture."""
    return pb.ImageRecord(
        model=record.model,
        model_digest=record.model_digest,
        engine=record.engine,
        prompt=record.prompt,
        negative_prompt=record.negative_prompt,
        width=record.width,
        height=record.height,
        seed=record.seed,
        steps=record.steps,
        guidance_scale=record.guidance_scale,
        scheduler=scheduler_to_proto(record.scheduler),
        loras=[
            pb.AppliedLora(id=lora.id, digest=lora.digest, scale=lora.scale)
            for lora in record.loras
        ],
        strength=record.strength,
        source_digest=record.source_digest,
        mask_digest=record.mask_digest,
        deterministic=record.deterministic,
        unusual_size=record.unusual_size,
        schedule_steps=record.schedule_steps,
    )


def write_answer(answer: Answer, message: AnswerMessage) -> None:
    """Writes one step of the answer into an empty response, with its usage."""
    step = answer.step
    match step:
        case StepTaken():
            progress = pb.StepProgress(index=step.index, step=step.step, steps=step.steps)
            message.progress.CopyFrom(progress)
        case EncodedPreview():
            message.preview.CopyFrom(
                pb.ImagePreview(index=step.index, step=step.step, jpeg=step.jpeg)
            )
        case PictureStart():
            message.start.CopyFrom(_start(step))
        case PictureChunk():
            message.chunk.index = step.index
            message.chunk.chunk.data = step.data
        case PictureEnd():
            message.end.index = step.index
            message.end.end.sha256 = step.sha256
            message.end.end.size = step.size
        case None:
            pass
    message.usage.CopyFrom(usage_to_proto(answer.usage))


def _start(start: PictureStart) -> pb.ImageStart:
    return pb.ImageStart(
        index=start.index,
        format=_FORMATS[start.format],
        size=start.size,
        record=record_to_proto(start.record),
        withheld=_WITHHELD[start.withheld],
    )


def _scheduler(value: pb.Scheduler.ValueType, field: str) -> SchedulerKind | None:
    if value == pb.SCHEDULER_UNSPECIFIED:
        return None
    kind = _SCHEDULERS_BACK.get(value)
    if kind is None:
        raise InvalidArgument(f"There is no scheduler {value}.", field=field)
    return kind


def _loras(message: pb.DenoisingParams, field: str) -> tuple[LoraUse, ...]:
    if len(message.loras) > MAX_LORAS:
        raise InvalidArgument(f"At most {MAX_LORAS} LoRAs are applied.", field=field)
    uses: list[LoraUse] = []
    for index, lora in enumerate(message.loras):
        where = f"{field}[{index}]"
        if not lora.id:
            raise InvalidArgument("A LoRA needs its id.", field=f"{where}.id")
        if any(lora.id == use.id for use in uses):
            raise InvalidArgument(f"The LoRA {lora.id!r} is named twice.", field=f"{where}.id")
        scale = lora.scale if lora.HasField("scale") else 1.0
        ranged(scale, -MAX_LORA_SCALE, MAX_LORA_SCALE, f"{where}.scale")
        uses.append(LoraUse(id=lora.id, scale=scale))
    return tuple(uses)
