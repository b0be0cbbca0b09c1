"""The messages that both picture services share, to and from the gateway's own terms."""

from typing import Final

from atrium.common.v1 import image_pb2, media_pb2
from atrium.img2img.v1 import img2img_pb2
from atrium.text2image.v1 import text2image_pb2
from atrium_gateway.upstreams.pictures import (
    AppliedLora,
    Denoising,
    End,
    Limits,
    Output,
    Preview,
    Previews,
    Progress,
    Record,
    Start,
    Step,
)

_FORMATS: Final = {
    "png": image_pb2.IMAGE_FORMAT_PNG,
    "jpeg": image_pb2.IMAGE_FORMAT_JPEG,
    "webp": image_pb2.IMAGE_FORMAT_WEBP,
}
_FORMAT_NAMES: Final = {value: name for name, value in _FORMATS.items()}
_SCHEDULERS: Final = {
    name.removeprefix("SCHEDULER_").lower(): value
    for name, value in image_pb2.Scheduler.items()
    if value != image_pb2.SCHEDULER_UNSPECIFIED
}
_SCHEDULER_NAMES: Final = {value: name for name, value in _SCHEDULERS.items()}
_WITHHELD: Final = {image_pb2.WITHHELD_REASON_UNSAFE: "unsafe"}
StepMessage = text2image_pb2.GenerateImageResponse | img2img_pb2.EditImageResponse


def denoising_to_proto(denoising: Denoising) -> image_pb2.DenoisingParams:
    """Writes how pictures are denoised; what is ``None`` or empty stays unset."""
    return image_pb2.DenoisingParams(
        steps=denoising.steps,
        guidance_scale=denoising.guidance_scale,
        scheduler=_SCHEDULERS.get(denoising.scheduler, image_pb2.SCHEDULER_UNSPECIFIED),
        seed=denoising.seed,
        loras=[image_pb2.LoraWeight(id=lora.id, scale=lora.scale) for lora in denoising.loras],
        deterministic=denoising.deterministic,
    )


def output_to_proto(output: Output) -> image_pb2.ImageOutput:
    """Writes how pictures are encoded."""
    return image_pb2.ImageOutput(
        format=_FORMATS[output.format],
        quality=output.quality,
        embed_record=output.embed_record,
    )


def previews_to_proto(previews: Previews) -> image_pb2.PreviewOptions:
    """Writes which early views are sent."""
    return image_pb2.PreviewOptions(interval=previews.interval, max_side=previews.max_side)


def step(message: StepMessage) -> Step:
    """Reads what a message brings, but for ``info``, which differs: its client reads that."""
    match message.WhichOneof("step"):
        case "progress":
            taken = message.progress
            return Progress(index=taken.index, step=taken.step, steps=taken.steps)
        case "preview":
            view = message.preview
            return Preview(index=view.index, step=view.step, jpeg=view.jpeg)
        case "start":
            return _start(message.start)
        case "chunk":
            return message.chunk.chunk.data
        case "end":
            return _end(message.end.index, message.end.end)
    return None


def limits(message: image_pb2.ImageModelLimits) -> Limits:
    """Reads what a model takes."""
    return Limits(
        model=message.model,
        native_width=message.native_width,
        native_height=message.native_height,
        min_side=message.min_side,
        max_side=message.max_side,
        max_pixels=message.max_pixels,
        default_steps=message.default_steps,
        default_guidance_scale=message.default_guidance_scale,
        default_scheduler=_SCHEDULER_NAMES.get(message.default_scheduler, ""),
        loras=list(message.loras),
    )


def _start(message: image_pb2.ImageStart) -> Start:
    withheld = message.withheld
    return Start(
        index=message.index,
        format=_FORMAT_NAMES[message.format],
        size=message.size,
        record=_record(message.record),
        # A reason that is not known withholds the picture all the same.
        withheld=_WITHHELD.get(withheld, "withheld") if withheld else "",
    )


def _end(index: int, message: media_pb2.MediaEnd) -> End:
    return End(index=index, sha256=message.sha256.hex(), size=message.size)


def _record(record: image_pb2.ImageRecord) -> Record:
    return Record(
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
        scheduler=_SCHEDULER_NAMES.get(record.scheduler, ""),
        loras=[AppliedLora(id=one.id, digest=one.digest, scale=one.scale) for one in record.loras],
        strength=record.strength,
        source_digest=record.source_digest,
        mask_digest=record.mask_digest,
        deterministic=record.deterministic,
        unusual_size=record.unusual_size,
        schedule_steps=record.schedule_steps,
    )
