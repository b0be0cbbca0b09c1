"""What goes over the wire and back is what it was; what is out of range is named."""

from dataclasses import fields
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrium.common.v1 import image_pb2 as pb
from atrium.img2img.v1 import img2img_pb2
from atrium.text2image.v1 import text2image_pb2
from atrium_common.domain import Usage
from atrium_common.errors import InvalidArgument
from atrium_diffusion.answer import (
    Answer,
    AnswerStep,
    EncodedPreview,
    PictureChunk,
    PictureEnd,
    PictureStart,
    Withheld,
)
from atrium_diffusion.domain import (
    AppliedLora,
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
from atrium_diffusion.wire import (
    denoising_from_proto,
    denoising_to_proto,
    limits_to_proto,
    output_from_proto,
    output_to_proto,
    preview_from_proto,
    preview_to_proto,
    record_to_proto,
    write_answer,
)

EASY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
names = st.text("abcdefgh-123", min_size=1, max_size=12)
scales = st.floats(-2, 2)
counts = st.integers(0, 2**31 - 1)
schedulers = st.none() | st.sampled_from(SchedulerKind)

denoisings = st.builds(
    Denoising,
    steps=st.none() | st.integers(1, 150),
    guidance_scale=st.none() | st.floats(0, 30),
    scheduler=schedulers,
    seed=st.none() | st.integers(0, 2**63 - 1),
    loras=st.lists(
        st.builds(LoraUse, id=names, scale=scales), max_size=8, unique_by=lambda use: use.id
    ).map(tuple),
    deterministic=st.booleans(),
)
outputs = st.builds(
    OutputOptions, format=st.just(PictureFormat.PNG), embed_record=st.booleans()
) | st.builds(
    OutputOptions,
    format=st.sampled_from([PictureFormat.JPEG, PictureFormat.WEBP]),
    quality=st.none() | st.integers(1, 100),
)
previews = st.builds(PreviewOptions, interval=st.integers(0, 50), max_side=st.integers(32, 512))
records = st.builds(
    PictureRecord,
    **{
        field.name: {"str": text, "int": counts, "bool": st.booleans()}.get(
            getattr(field.type, "__name__", str(field.type)), st.floats(0, 30)
        )
        for field in fields(PictureRecord)
    }
    | {
        "scheduler": schedulers,
        "loras": st.lists(
            st.builds(AppliedLora, id=names, digest=text, scale=scales), max_size=3
        ).map(tuple),
    },
)


@EASY
@given(denoisings, outputs, previews)
def test_options_come_back(
    denoising: Denoising, output: OutputOptions, preview: PreviewOptions
) -> None:
    assert denoising_from_proto(denoising_to_proto(denoising)) == denoising
    assert output_from_proto(output_to_proto(output)) == output
    assert preview_from_proto(preview_to_proto(preview)) == preview


def test_what_is_not_asked_for_takes_the_defaults() -> None:
    assert denoising_from_proto(pb.DenoisingParams()) == Denoising()
    assert output_from_proto(pb.ImageOutput()) == OutputOptions()
    assert preview_from_proto(pb.PreviewOptions()) == PreviewOptions()
    lora = pb.DenoisingParams(loras=[pb.LoraWeight(id="frost")])
    assert denoising_from_proto(lora).loras == (LoraUse(id="frost", scale=1.0),)


NAN, INFINITY = float("nan"), float("inf")
BAD_DENOISING = [
    (pb.DenoisingParams(steps=0), "steps"),
    (pb.DenoisingParams(steps=-4), "steps"),
    (pb.DenoisingParams(steps=151), "steps"),
    (pb.DenoisingParams(guidance_scale=NAN), "guidance_scale"),
    (pb.DenoisingParams(guidance_scale=INFINITY), "guidance_scale"),
    (pb.DenoisingParams(guidance_scale=-0.1), "guidance_scale"),
    (pb.DenoisingParams(guidance_scale=30.1), "guidance_scale"),
    (pb.DenoisingParams(scheduler=99), "scheduler"),  # type: ignore[arg-type]
    (pb.DenoisingParams(seed=-1), "seed"),
    (pb.DenoisingParams(loras=[pb.LoraWeight(id=f"l{i}") for i in range(9)]), "loras"),
    (pb.DenoisingParams(loras=[pb.LoraWeight()]), "loras[0].id"),
    (pb.DenoisingParams(loras=[pb.LoraWeight(id="a"), pb.LoraWeight(id="a")]), "loras[1].id"),
    (pb.DenoisingParams(loras=[pb.LoraWeight(id="a", scale=2.5)]), "loras[0].scale"),
    (pb.DenoisingParams(loras=[pb.LoraWeight(id="a", scale=NAN)]), "loras[0].scale"),
]
BAD_OUTPUT = [
    (pb.ImageOutput(format=9), "format"),  # type: ignore[arg-type]
    (pb.ImageOutput(quality=90), "quality"),
    (pb.ImageOutput(format=pb.IMAGE_FORMAT_JPEG, quality=0), "quality"),
    (pb.ImageOutput(format=pb.IMAGE_FORMAT_WEBP, quality=101), "quality"),
    (pb.ImageOutput(format=pb.IMAGE_FORMAT_JPEG, embed_record=True), "embed_record"),
]
BAD_PREVIEW = [
    (pb.PreviewOptions(interval=-1), "interval"),
    (pb.PreviewOptions(interval=51), "interval"),
    (pb.PreviewOptions(max_side=31), "max_side"),
    (pb.PreviewOptions(max_side=513), "max_side"),
]


@pytest.mark.parametrize(("message", "field"), BAD_DENOISING)
def test_bad_denoising_is_refused_by_name(message: pb.DenoisingParams, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        denoising_from_proto(message, field="config.denoising")
    assert refusal.value.field == f"config.denoising.{field}"


@pytest.mark.parametrize(("message", "field"), BAD_OUTPUT)
def test_bad_output_is_refused_by_name(message: pb.ImageOutput, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        output_from_proto(message)
    assert refusal.value.field == f"output.{field}"


@pytest.mark.parametrize(("message", "field"), BAD_PREVIEW)
def test_bad_previews_are_refused_by_name(message: pb.PreviewOptions, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        preview_from_proto(message)
    assert refusal.value.field == f"preview.{field}"


def name_of(scheduler: SchedulerKind | None) -> str:
    return "UNSPECIFIED" if scheduler is None else scheduler.name


@EASY
@given(records)
def test_a_record_arrives_whole(record: PictureRecord) -> None:
    message = record_to_proto(record)
    for field in fields(PictureRecord):
        arrived, value = getattr(message, field.name), getattr(record, field.name)
        if field.name == "scheduler":
            assert pb.Scheduler.Name(arrived) == f"SCHEDULER_{name_of(value)}"
        elif field.name == "loras":
            assert [(one.id, one.digest, one.scale) for one in arrived] == [
                (one.id, one.digest, one.scale) for one in value
            ]
        else:
            assert arrived == value


def test_a_record_has_the_fields_of_its_message() -> None:
    names = [field.name for field in fields(PictureRecord)]
    assert names == list(pb.ImageRecord.DESCRIPTOR.fields_by_name)


def test_every_scheduler_and_format_of_the_wire_is_known() -> None:
    kinds = {f"SCHEDULER_{kind.name}" for kind in SchedulerKind}
    assert set(pb.Scheduler.keys()) == kinds | {"SCHEDULER_UNSPECIFIED"}
    kinds = {f"IMAGE_FORMAT_{kind.name}" for kind in PictureFormat}
    assert set(pb.ImageFormat.keys()) == kinds | {"IMAGE_FORMAT_UNSPECIFIED"}


def test_limits_arrive_whole() -> None:
    limits = ModelLimits(
        model="m",
        native_width=1,
        native_height=2,
        min_side=3,
        max_side=4,
        max_pixels=5,
        default_steps=6,
        default_guidance_scale=7.5,
        default_scheduler=SchedulerKind.LCM,
        loras=("a", "b"),
    )
    message = limits_to_proto(limits)
    assert message.default_scheduler == pb.SCHEDULER_LCM
    assert tuple(message.loras) == limits.loras
    for field in fields(ModelLimits):
        if field.name not in ("default_scheduler", "loras"):
            assert getattr(message, field.name) == getattr(limits, field.name)


RECORD = PictureRecord(
    model="m",
    model_digest="",
    engine="fake 1",
    prompt="p",
    negative_prompt="",
    width=8,
    height=8,
    seed=2**63 - 1,
    steps=1,
    guidance_scale=1.0,
    scheduler=None,
    loras=(),
    strength=0.0,
    source_digest="",
    mask_digest="",
    deterministic=False,
    unusual_size=False,
    schedule_steps=1,
)
STEPS: list[tuple[AnswerStep | None, str | None]] = [
    (StepTaken(index=1, step=2, steps=3), "progress"),
    (EncodedPreview(index=1, step=2, jpeg=b"jpeg"), "preview"),
    (PictureStart(index=1, format=PictureFormat.WEBP, size=9, record=RECORD), "start"),
    (PictureChunk(index=0, data=b"data"), "chunk"),
    (PictureEnd(index=0, sha256=b"digest", size=0), "end"),
    (None, None),
]


@pytest.mark.parametrize(("step", "name"), STEPS)
@pytest.mark.parametrize(
    "response", [text2image_pb2.GenerateImageResponse, img2img_pb2.EditImageResponse]
)
def test_each_step_is_written_with_its_usage(
    response: type[text2image_pb2.GenerateImageResponse] | type[img2img_pb2.EditImageResponse],
    step: AnswerStep | None,
    name: str | None,
) -> None:
    usage = Usage(model="m", images=3, inference_time=timedelta(seconds=1))
    message = response()
    write_answer(Answer(step=step, usage=usage), message)
    assert message.WhichOneof("step") == name
    assert message.usage.images == 3
    assert message.usage.inference_time.seconds == 1
    if name is not None:
        assert getattr(message, name).index == getattr(step, "index", None)


def test_a_withheld_picture_says_why() -> None:
    step = PictureStart(
        index=0, format=PictureFormat.PNG, size=0, record=RECORD, withheld=Withheld.UNSAFE
    )
    message = text2image_pb2.GenerateImageResponse()
    write_answer(Answer(step=step, usage=Usage()), message)
    assert message.start.withheld == pb.WITHHELD_REASON_UNSAFE
    assert message.start.format == pb.IMAGE_FORMAT_PNG
    assert message.start.record.seed == 2**63 - 1
