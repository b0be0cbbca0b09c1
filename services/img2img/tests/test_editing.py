"""The service over real sockets with the fake engine: every field, refusals, metering."""

import io
import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from editing_service import LORA, Running, asked, config, photo, png
from PIL import Image

from atrium.common.v1 import image_pb2
from atrium.img2img.v1 import img2img_pb2 as pb
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import check_service, gateway_metadata, tenant_metadata
from atrium_common.testing.fields import each, leaves
from atrium_diffusion.domain import RequestPlan
from atrium_diffusion.testing.received import Received

NAN = float("nan")
JPEG, WEBP = image_pb2.IMAGE_FORMAT_JPEG, image_pb2.IMAGE_FORMAT_WEBP
NONE, STRETCH = pb.RESIZE_MODE_NONE, pb.RESIZE_MODE_STRETCH
Check = Callable[[RequestPlan, Received], bool]

MASK = np.zeros((64, 64), np.uint8)
MASK[16:48, 16:48] = 255
WIDE = png(photo(128, 64))


def record(answer: Received, index: int = 0) -> Any:
    return answer.pictures[index].start.record


def embedded(answer: Received) -> dict[str, object]:
    text = Image.open(io.BytesIO(answer.pictures[0].data)).text  # type: ignore[attr-defined]
    return json.loads(text["atrium"])  # type: ignore[no-any-return]


def shape(answer: Received, index: int = 0) -> tuple[int, ...]:
    return answer.pictures[index].pixels.shape


async def test_does_what_every_service_promises(service: Running) -> None:
    await check_service(service.channel, service.servicer.service_name)
    reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=gateway_metadata())
    assert [model.id for model in reply.models] == ["fake-edits"]
    assert [limits.model for limits in reply.limits] == ["fake-edits"]
    assert list(reply.limits[0].loras) == [LORA]


async def test_each_upload_is_edited_n_times(shared: Running) -> None:
    uploads = [png(photo(seed=seed)) for seed in (1, 2)] + [WIDE]
    answer = await shared.edit(
        *uploads, n=2, strength=0.5, denoising={"seed": 7, "steps": 9}, resize_mode=NONE
    )
    info = answer.info
    assert (info.count, info.steps, info.seed) == (6, 4, 7)
    assert [(size.width, size.height) for size in info.sizes] == [(64, 64), (64, 64), (128, 64)]
    assert [record(answer, index).seed for index in range(6)] == list(range(7, 13))
    assert sorted((p.index, p.step, p.steps) for p in answer.progress) == [
        (index, step, 4) for index in range(6) for step in range(1, 5)
    ]
    assert len({record(answer, index).source_digest for index in range(6)}) == 3
    assert record(answer).source_digest == record(answer, 1).source_digest
    assert answer.usage.images == 6
    assert answer.usage.millimegapixel_steps == -(-4 * 64 * (4 * 64 + 2 * 128) // 1000)


HONOURED: dict[str, tuple[dict[str, Any], Check]] = {
    "model": ({"model": "dall-e-2"}, lambda plan, _: plan.job.model == "fake-edits"),
    "prompt": ({"prompt": "two  stars"}, lambda _, a: record(a).prompt == "two  stars"),
    "negative_prompt": (
        {"negative_prompt": "blue"},
        lambda _, answer: record(answer).negative_prompt == "blue",
    ),
    "strength": (
        {"strength": 0.25, "denoising": {"steps": 8}},
        lambda _, a: record(a).strength == 0.25 and record(a).steps == len(a.progress) == 2,
    ),
    "image_count": (
        {"image_count": 2, "images": (WIDE, WIDE)},
        lambda _, answer: len(answer.pictures) == answer.info.count == 2,
    ),
    "has_mask": (
        {"has_mask": True, "mask": png(MASK)},
        lambda _, a: (
            np.array_equal(a.pictures[0].pixels[MASK == 0], photo()[MASK == 0])
            and not np.array_equal(a.pictures[0].pixels, photo())
            and len(record(a).mask_digest) == 64
        ),
    ),
    "mask_blur": (
        {"mask": png(MASK), "mask_blur": 3},
        lambda plan, _: 0 < float(plan.job.sources[0].mask[15, 32]) < 1,  # type: ignore[index]
    ),
    "resize_mode": (
        {"images": (WIDE,), "resize_mode": NONE},
        lambda _, answer: shape(answer) == (64, 128, 3),
    ),
    "width": (
        {"images": (WIDE,), "width": 96},
        lambda _, answer: shape(answer) == (48, 96, 3),
    ),
    "height": (
        {"images": (WIDE,), "height": 96, "width": 96, "resize_mode": STRETCH},
        lambda _, answer: shape(answer) == (96, 96, 3),
    ),
    "n": ({"n": 3}, lambda _, answer: len(answer.pictures) == 3),
    "denoising.steps": (
        {"denoising": {"steps": 10}},
        lambda _, a: record(a).schedule_steps == 10 and record(a).steps == 6,
    ),
    "denoising.guidance_scale": (
        {"denoising": {"guidance_scale": 0.0}},
        lambda _, answer: record(answer).guidance_scale == 0.0,
    ),
    "denoising.scheduler": (
        {"denoising": {"scheduler": image_pb2.SCHEDULER_LCM}},
        lambda _, answer: record(answer).scheduler == image_pb2.SCHEDULER_LCM,
    ),
    "denoising.seed": ({"denoising": {"seed": 9}}, lambda _, answer: record(answer).seed == 9),
    "denoising.loras.id": (
        {"denoising": {"loras": [{"id": LORA}]}},
        lambda _, a: (
            [(lora.id, lora.digest, lora.scale) for lora in record(a).loras]
            == [(LORA, "c" * 64, 1.0)]
        ),
    ),
    "denoising.loras.scale": (
        {"denoising": {"loras": [{"id": LORA, "scale": -0.5}]}},
        lambda _, answer: record(answer).loras[0].scale == -0.5,
    ),
    "denoising.deterministic": (
        {"denoising": {"deterministic": True}},
        lambda _, answer: bool(record(answer).deterministic),
    ),
    "output.format": (
        {"output": {"format": WEBP}},
        lambda _, answer: answer.pictures[0].data[8:12] == b"WEBP",
    ),
    "output.quality": (
        {"output": {"format": JPEG, "quality": 1}},
        lambda _, a: a.pictures[0].data[:2] == b"\xff\xd8" and len(a.pictures[0].data) < 1_000,
    ),
    "output.embed_record": (
        {"output": {"embed_record": True}, "strength": 0.7},
        lambda _, a: (
            embedded(a)["strength"] == 0.7
            and embedded(a)["source_digest"] == record(a).source_digest
        ),
    ),
    "preview.interval": (
        {
            "model": "slow-edits",
            "preview": {"interval": 2},
            "denoising": {"steps": 6},
            "strength": 1.0,
        },
        # A reader that is slow gets the latest alone.
        lambda _, answer: {2, 4} >= {preview.step for preview in answer.previews} != set(),
    ),
    "preview.max_side": (
        {"model": "slow-edits", "preview": {"interval": 1, "max_side": 32}},
        lambda _, a: Image.open(io.BytesIO(a.previews[0].jpeg)).size == (32, 32),
    ),
    "priority": ({"priority": 2}, lambda plan, _: plan.job.priority == 2),
    "truncate_prompt": (
        {"prompt": "circle " * 100, "truncate_prompt": True},
        lambda _, answer: len(answer.pictures) == 1,
    ),
}


def test_no_field_of_the_request_is_forgotten() -> None:
    assert set(leaves(pb.EditConfig.DESCRIPTOR)) == set(HONOURED)
    steps = [field.name for field in pb.EditImageRequest.DESCRIPTOR.fields]
    assert steps == ["config", "image_chunk", "image_end", "mask_chunk", "mask_end"]


@pytest.mark.parametrize("field", HONOURED)
async def test_every_field_is_honoured(shared: Running, field: str) -> None:
    fields, check = HONOURED[field]
    images, mask = fields.get("images", ()), fields.get("mask")
    given = {name: value for name, value in fields.items() if name not in ("images", "mask")}
    answer = await shared.edit(*images, mask=mask, **given)
    assert check(shared.engine.drawn[-1], answer)


REFUSED: list[tuple[dict[str, object], str]] = [
    *each("model", "gpt-9"),
    *each("prompt", "", " \n", "x" * 4_001, "word " * 78),
    *each("negative_prompt", "x" * 4_001),
    *each("strength", NAN, -0.1, 1.1),
    *each("image_count", 0, -1, 17, 10**6),
    *each("mask_blur", -1, 65, 5),
    *each("resize_mode", -1, 6),
    *(({"height": 64, "width": side}, "width") for side in (10**6, -8, 12)),
    *(({"width": 64, "height": side}, "height") for side in (10**6, -64, 1)),
    *each("n", 0, -1, 17, 1000),
    *each("denoising.steps", 0, -4, 151),
    *each("denoising.guidance_scale", NAN, -0.1, 30.1),
    *each("denoising.scheduler", 12),
    *each("denoising.seed", -1),
    *each("denoising.loras", [{"id": "nobody"}]),
    *each("output.format", 4),
    *each("output.quality", 0, 50, 101),
    *each("preview.interval", -1, 51),
    *each("preview.max_side", 513),
    *each("priority", 3),
    ({"denoising": {"loras": [{"id": LORA, "scale": NAN}]}}, "denoising.loras[0].scale"),
    ({"image_count": 4, "n": 5}, "n"),
    ({"denoising": {"seed": 2**63 - 2}, "n": 3}, "denoising.seed"),
    ({"width": 64, "resize_mode": NONE}, "width"),
    ({"height": 64, "resize_mode": NONE}, "height"),
    ({"output": {"format": JPEG, "embed_record": True}}, "output.embed_record"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
async def test_what_can_not_be_honoured_is_refused_by_name_before_the_upload(
    shared: Running, fields: dict[str, object], field: str
) -> None:
    started = shared.engine.started
    error = await shared.refusal([config(**fields)])
    assert error.field == field
    assert len(error.message) < 300
    assert shared.engine.started == started


@pytest.mark.parametrize(
    ("fields", "most"), [({}, 1024 * 1024), ({"width": 64, "height": 64}, 4096)]
)
async def test_a_direct_caller_reserves_a_bound_and_pays_the_work(
    service: Running, fields: dict[str, object], most: int
) -> None:
    requests = asked(n=2, denoising={"steps": 10}, strength=0.5, **fields)
    answers = [answer async for answer in service.call(requests, tenant_metadata())]
    booking = (await service.admission.closed(1))[0]
    assert (booking.outcome, booking.renewals) == ("COMPLETED", 0)
    assert (booking.bound.images, booking.bound.millimegapixel_steps) == (
        2,
        2 * 5 * most // 1000 + 1,
    )
    assert booking.usage is not None
    assert booking.usage.images == answers[-1].usage.images == 2
    assert booking.usage.millimegapixel_steps == -(-2 * 5 * 4096 // 1000)


async def test_a_model_that_is_not_loaded_is_told_before_the_upload(service: Running) -> None:
    await service.engine.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.call([config()], tenant_metadata()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(caught.value).reason == "MODEL_NOT_READY"
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"
