"""`atrium.text2image.v1` to and from the domain: every field honoured or refused by name.

`servicer.py` calls this; ranges are those of the proto's comments.
"""

from dataclasses import replace

from atrium.text2image.v1 import text2image_pb2 as pb
from atrium_common.domain import Usage
from atrium_common.wire import usage_to_proto
from atrium_diffusion.answer import Answer
from atrium_diffusion.checks import new_job
from atrium_diffusion.domain import OutputOptions, PictureJob, RequestPlan
from atrium_diffusion.wire import (
    denoising_from_proto,
    output_from_proto,
    preview_from_proto,
    write_answer,
)


def job_from_proto(request: pb.GenerateImageRequest, *, model: str) -> PictureJob:
    """Reads what is to be drawn.

    Args:
        request: As the caller sent it.
        model: Catalogue id that its `model` resolved to.

    Raises:
        InvalidArgument: A field is out of its range; `field` names it.
    """
    job = new_job(
        model=model,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        n=request.n if request.HasField("n") else 1,
        denoising=denoising_from_proto(request.denoising),
        preview=preview_from_proto(request.preview),
        priority=request.priority,
        truncate_prompt=request.truncate_prompt,
    )
    return replace(job, width=request.width, height=request.height)


def output_options(request: pb.GenerateImageRequest) -> OutputOptions:
    """Reads how its pictures are encoded; raises as `job_from_proto` does."""
    return output_from_proto(request.output)


def info_to_proto(plan: RequestPlan, usage: Usage) -> pb.GenerateImageResponse:
    """Writes what was decided."""
    first = plan.pictures[0]
    info = pb.GenerationInfo(
        n=len(plan.pictures),
        steps=first.steps,
        width=first.width,
        height=first.height,
        seed=first.seed,
    )
    return pb.GenerateImageResponse(info=info, usage=usage_to_proto(usage))


def answer_to_proto(answer: Answer) -> pb.GenerateImageResponse:
    """Writes one step of the answer with what was consumed so far."""
    message = pb.GenerateImageResponse()
    write_answer(answer, message)
    return message
