"""`atrium.img2img.v1` to and from the domain: every field honoured or refused by name.

`servicer.py` calls this; ranges are those of the proto's comments.
"""

from dataclasses import replace

from atrium.img2img.v1 import img2img_pb2 as pb
from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument
from atrium_common.images import ResizeMode
from atrium_common.intake import UploadChunk, UploadEnd, UploadPart
from atrium_common.wire import usage_to_proto
from atrium_diffusion.answer import Answer
from atrium_diffusion.checks import MAX_PICTURES, new_job
from atrium_diffusion.domain import RequestPlan
from atrium_diffusion.wire import (
    denoising_from_proto,
    output_from_proto,
    preview_from_proto,
    write_answer,
)
from atrium_img2img.domain import DEFAULT_STRENGTH, EditOrder, UploadKind

MAX_MASK_BLUR = 64

_RESIZE_MODES: dict[int, ResizeMode] = {
    pb.RESIZE_MODE_UNSPECIFIED: ResizeMode.FIT,
    pb.RESIZE_MODE_FIT: ResizeMode.FIT,
    pb.RESIZE_MODE_CROP: ResizeMode.CROP,
    pb.RESIZE_MODE_PAD: ResizeMode.PAD,
    pb.RESIZE_MODE_STRETCH: ResizeMode.STRETCH,
    pb.RESIZE_MODE_NONE: ResizeMode.NONE,
}


def order_from_proto(config: pb.EditConfig, *, model: str) -> EditOrder:
    """Reads what is to be done with the uploads.

    Args:
        config: As the caller sent it.
        model: Catalogue id that its `model` resolved to.

    Raises:
        InvalidArgument: A field is out of its range; `field` names it.
    """
    uploads = _uploads(config)
    job = new_job(
        model=model,
        prompt=config.prompt,
        negative_prompt=config.negative_prompt,
        n=config.n if config.HasField("n") else 1,
        denoising=denoising_from_proto(config.denoising),
        preview=preview_from_proto(config.preview),
        priority=config.priority,
        truncate_prompt=config.truncate_prompt,
        uploads=uploads,
    )
    return EditOrder(
        job=replace(job, strength=_strength(config)),
        output=output_from_proto(config.output),
        uploads=uploads,
        has_mask=config.has_mask,
        mask_blur=_mask_blur(config),
        resize=_resize_mode(config.resize_mode),
        width=config.width,
        height=config.height,
    )


def part_from_proto(request: pb.EditImageRequest) -> UploadPart:
    """Reads a part of an upload.

    Raises:
        InvalidArgument: It is a second config, or empty.
    """
    match request.WhichOneof("step"):
        case "image_chunk":
            return UploadChunk(UploadKind.IMAGE, request.image_chunk.data)
        case "image_end":
            end = request.image_end
            return UploadEnd(UploadKind.IMAGE, end.sha256, end.size)
        case "mask_chunk":
            return UploadChunk(UploadKind.MASK, request.mask_chunk.data)
        case "mask_end":
            end = request.mask_end
            return UploadEnd(UploadKind.MASK, end.sha256, end.size)
        case "config":
            raise InvalidArgument("The config comes once.", field="config")
        case _:
            raise InvalidArgument("A message holds a part of an upload.", field="step")


def info_to_proto(plan: RequestPlan, usage: Usage) -> pb.EditImageResponse:
    """Writes what was decided."""
    firsts = plan.pictures[:: plan.job.n]
    info = pb.EditInfo(
        count=len(plan.pictures),
        steps=plan.pictures[0].steps,
        sizes=[pb.EditSize(width=picture.width, height=picture.height) for picture in firsts],
        seed=plan.pictures[0].seed,
    )
    return pb.EditImageResponse(info=info, usage=usage_to_proto(usage))


def answer_to_proto(answer: Answer) -> pb.EditImageResponse:
    """Writes one step of the answer with what was consumed so far."""
    message = pb.EditImageResponse()
    write_answer(answer, message)
    return message


def _uploads(config: pb.EditConfig) -> int:
    if not config.HasField("image_count"):
        return 1
    if not 1 <= config.image_count <= MAX_PICTURES:
        raise InvalidArgument(f"image_count is from 1 to {MAX_PICTURES}.", field="image_count")
    return config.image_count


def _strength(config: pb.EditConfig) -> float:
    if not config.HasField("strength"):
        return DEFAULT_STRENGTH
    if not 0.0 <= config.strength <= 1.0:  # false for NaN
        raise InvalidArgument("strength is from 0 to 1.", field="strength")
    return config.strength


def _mask_blur(config: pb.EditConfig) -> int:
    if not 0 <= config.mask_blur <= MAX_MASK_BLUR:
        raise InvalidArgument(f"mask_blur is from 0 to {MAX_MASK_BLUR}.", field="mask_blur")
    if config.mask_blur and not config.has_mask:
        raise InvalidArgument("mask_blur softens a mask; none is sent.", field="mask_blur")
    return config.mask_blur


def _resize_mode(value: int) -> ResizeMode:
    mode = _RESIZE_MODES.get(value)
    if mode is None:
        raise InvalidArgument(f"There is no resize mode {value}.", field="resize_mode")
    return mode
