"""The service over real sockets with the fake engine: every field, order, refusals, metering."""

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from drawing_service import LORA, Running, asked, entry, serving
from PIL import Image

from atrium.common.v1 import image_pb2
from atrium.text2image.v1 import text2image_pb2 as pb
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import check_service, gateway_metadata, tenant_metadata
from atrium_common.testing.fields import each, leaves
from atrium_diffusion.domain import Pixels, RequestPlan
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.testing.received import Received

NAN = float("nan")
SIDE = 64
JPEG, WEBP = image_pb2.IMAGE_FORMAT_JPEG, image_pb2.IMAGE_FORMAT_WEBP
Check = Callable[[RequestPlan, Received], bool]


def record(answer: Received, index: int = 0) -> Any:
    return answer.pictures[index].start.record


def embedded(answer: Received) -> dict[str, object]:
    text = Image.open(io.BytesIO(answer.pictures[0].data)).text  # type: ignore[attr-defined]
    return json.loads(text["atrium"])  # type: ignore[no-any-return]


async def test_does_what_every_service_promises(service: Running) -> None:
    await check_service(service.channel, service.servicer.service_name)
    reply = await service.stub.ListModels(pb.ListModelsRequest(), metadata=gateway_metadata())
    assert [model.id for model in reply.models] == ["fake-pictures"]
    (limits,) = reply.limits
    assert (limits.model, limits.native_width, limits.native_height) == ("fake-pictures", 64, 64)
    assert (limits.default_steps, limits.max_pixels) == (4, 1024 * 1024)
    assert limits.default_scheduler == image_pb2.SCHEDULER_EULER
    assert list(limits.loras) == [LORA, "other-lora"]


async def test_info_first_then_steps_then_pictures_each_with_the_usage_so_far(
    service: Running,
) -> None:
    answer = await service.draw(n=3, denoising={"seed": 40})
    info = answer.info
    assert (info.n, info.steps, info.width, info.height, info.seed) == (3, 4, SIDE, SIDE, 40)
    assert sorted((p.index, p.step, p.steps) for p in answer.progress) == [
        (index, step, 4) for index in range(3) for step in range(1, 5)
    ]
    assert [record(answer, index).seed for index in range(3)] == [40, 41, 42]
    usage = answer.usage
    assert (usage.model, usage.engine, usage.model_digest) == ("fake-pictures", "fake", "ab" * 32)
    assert usage.images == 3
    assert usage.millimegapixel_steps == -(-3 * 4 * SIDE * SIDE // 1000)
    for index in range(3):  # picture i is the one that seed + i alone draws
        alone = await service.draw(denoising={"seed": 40 + index})
        assert alone.pictures[0].data == answer.pictures[index].data


HONOURED: dict[str, tuple[dict[str, object], Check]] = {
    "model": ({"model": "dall-e-3"}, lambda plan, _: plan.job.model == "fake-pictures"),
    "prompt": ({"prompt": "two  stars"}, lambda plan, _: plan.job.prompt == "two  stars"),
    "negative_prompt": (
        {"negative_prompt": "blue"},
        lambda _, answer: record(answer).negative_prompt == "blue",
    ),
    "width": (
        {"width": 96},
        lambda _, a: a.pictures[0].pixels.shape == (64, 96, 3) and record(a).unusual_size,
    ),
    "height": ({"height": 96}, lambda _, a: a.pictures[0].pixels.shape == (96, 64, 3)),
    "n": ({"n": 16}, lambda _, answer: len(answer.pictures) == 16),
    "denoising.steps": (
        {"denoising": {"steps": 7}},
        lambda _, a: record(a).steps == len(a.progress) == 7,
    ),
    "denoising.guidance_scale": (
        {"denoising": {"guidance_scale": 0.0}},
        lambda _, answer: record(answer).guidance_scale == 0.0,
    ),
    "denoising.scheduler": (
        {"denoising": {"scheduler": image_pb2.SCHEDULER_DPMPP_2M_SDE_KARRAS}},
        lambda _, a: record(a).scheduler == image_pb2.SCHEDULER_DPMPP_2M_SDE_KARRAS,
    ),
    "denoising.seed": (
        {"denoising": {"seed": 2**63 - 1}},
        lambda _, answer: record(answer).seed == answer.info.seed == 2**63 - 1,
    ),
    "denoising.loras.id": (
        {"denoising": {"loras": [{"id": LORA}, {"id": "other-lora"}]}},
        lambda _, a: (
            [(lora.id, lora.digest, lora.scale) for lora in record(a).loras]
            == [(LORA, "c" * 64, 1.0), ("other-lora", "d" * 64, 1.0)]
        ),
    ),
    "denoising.loras.scale": (
        {"denoising": {"loras": [{"id": LORA, "scale": -0.5}]}},
        lambda _, answer: record(answer).loras[0].scale == -0.5,
    ),
    "denoising.deterministic": (
        {"denoising": {"deterministic": True}},
        lambda plan, answer: plan.job.denoising.deterministic and record(answer).deterministic,
    ),
    "output.format": (
        {"output": {"format": WEBP}},
        lambda _, a: a.pictures[0].data[8:12] == b"WEBP" and a.pictures[0].start.format == WEBP,
    ),
    "output.quality": (
        {"output": {"format": JPEG, "quality": 1}, "width": 256, "height": 256},
        lambda _, a: a.pictures[0].data[:2] == b"\xff\xd8" and len(a.pictures[0].data) < 4_000,
    ),
    "output.embed_record": (
        {"output": {"embed_record": True}, "denoising": {"seed": 5}},
        lambda _, a: embedded(a)["seed"] == 5 and embedded(a)["model_digest"] == "ab" * 32,
    ),
    "preview.interval": (
        {"model": "slow-pictures", "preview": {"interval": 2}, "denoising": {"steps": 6}},
        # A reader that is slow gets the latest alone.
        lambda _, answer: {2, 4} >= {preview.step for preview in answer.previews} != set(),
    ),
    "preview.max_side": (
        {"model": "slow-pictures", "preview": {"interval": 2, "max_side": 32}, "width": 128},
        lambda _, a: Image.open(io.BytesIO(a.previews[0].jpeg)).size == (32, 16),
    ),
    "priority": ({"priority": -2}, lambda plan, _: plan.job.priority == -2),
    "truncate_prompt": (
        {"prompt": "circle " * 100, "truncate_prompt": True},
        lambda _, answer: len(answer.pictures) == 1,
    ),
}


def test_no_field_of_the_request_is_forgotten() -> None:
    assert set(leaves(pb.GenerateImageRequest.DESCRIPTOR)) == set(HONOURED)


@pytest.mark.parametrize("field", HONOURED)
async def test_every_field_is_honoured(shared: Running, field: str) -> None:
    fields, check = HONOURED[field]
    answer = await shared.draw(**fields)
    assert check(shared.engine.drawn[-1], answer)


REFUSED: list[tuple[dict[str, object], str]] = [
    *each("model", "gpt-9"),
    *each("prompt", "", " \n\t", "x" * 4_001, "word " * 78),
    *each("negative_prompt", "x" * 4_001, "word " * 78),
    *each("width", 10**6, 2**31 - 1, -8, 12, 8, 1032),
    *each("height", 10**6, -64, 1, 1032),
    *each("n", 0, -1, 17, 1000),
    *each("denoising.steps", 0, -4, 151, 10**6),
    *each("denoising.guidance_scale", NAN, float("inf"), -0.1, 30.1),
    *each("denoising.scheduler", -1, 12),
    *each("denoising.seed", -1),
    *each("output.format", -1, 4),
    *each("output.quality", 0, 50, 101),
    *each("preview.interval", -1, 51),
    *each("preview.max_side", 0, 31, 513),
    *each("priority", -3, 3),
    *(
        ({"denoising": {"loras": loras}}, field)
        for loras, field in (
            ([{"id": ""}], "denoising.loras[0].id"),
            ([{"id": "nobody"}], "denoising.loras"),
            ([{"id": LORA}] * 2, "denoising.loras[1].id"),
            ([{"id": str(number)} for number in range(9)], "denoising.loras"),
            *(
                ([{"id": LORA, "scale": scale}], "denoising.loras[0].scale")
                for scale in (NAN, -2.1, 2.1)
            ),
        )
    ),
    ({"denoising": {"seed": 2**63 - 1}, "n": 2}, "denoising.seed"),
    ({"output": {"format": JPEG, "embed_record": True}}, "output.embed_record"),
    ({"width": 1024, "height": 1024, "n": 1000}, "n"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
async def test_what_can_not_be_honoured_is_refused_by_name(
    shared: Running, fields: dict[str, object], field: str
) -> None:
    started = shared.engine.started
    error = await shared.refusal(**fields)
    assert error.field == field
    assert len(error.message) < 300
    assert shared.engine.started == started


async def test_refused_direct_callers_are_charged_nothing_and_the_service_stays_healthy(
    service: Running,
) -> None:
    for fields, _ in REFUSED:
        call = service.stub.GenerateImage(asked(**fields), metadata=tenant_metadata())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
    assert not service.admission.bookings, "refused before anything was reserved"
    assert len((await service.draw()).pictures) == 1


async def test_a_direct_caller_reserves_and_pays_the_whole_work(service: Running) -> None:
    request = asked(n=2, width=128, denoising={"steps": 9})
    call = service.stub.GenerateImage(request, metadata=tenant_metadata())
    answers = [answer async for answer in call]
    booking = (await service.admission.closed(1))[0]
    work = -(-2 * 9 * 128 * 64 // 1000)
    assert (booking.outcome, booking.renewals) == ("COMPLETED", 0)
    assert (booking.bound.images, booking.bound.millimegapixel_steps) == (2, work)
    assert booking.usage is not None
    assert (booking.usage.images, booking.usage.millimegapixel_steps) == (2, work)
    assert answers[-1].usage.images == 2


async def test_shares_are_the_tenants_own(service: Running) -> None:
    call = service.stub.GenerateImage(
        asked(), metadata=gateway_metadata(tenant="globex", weight=3.0)
    )
    [_ async for _ in call]
    job = service.engine.drawn[-1].job
    assert (job.tenant, job.weight) == ("globex", 3.0)


class Prude:
    """Finds pictures unsafe by what `judge` says."""

    def __init__(self, judge: Callable[[Pixels], bool]) -> None:
        self._judge = judge

    async def unsafe(self, pixels: Pixels) -> bool:
        return self._judge(pixels)


async def test_an_unsafe_picture_is_withheld_and_charged() -> None:
    async with serving() as free:
        dark = (await free.draw(n=3, denoising={"seed": 1})).pictures[1].pixels
    prude = Prude(lambda pixels: np.array_equal(pixels, dark))
    async with serving(finisher=Finisher(safety=prude)) as service:
        answer = await service.draw(n=3, denoising={"seed": 1})
    starts = [picture.start for picture in answer.pictures]
    assert [start.withheld for start in starts] == [
        image_pb2.WITHHELD_REASON_UNSPECIFIED,
        image_pb2.WITHHELD_REASON_UNSAFE,
        image_pb2.WITHHELD_REASON_UNSPECIFIED,
    ]
    assert [bool(picture.data) for picture in answer.pictures] == [True, False, True]
    assert answer.usage.images == 3


async def test_a_full_service_refuses_at_once_and_says_when_to_come_again() -> None:
    slow = entry(seconds_per_step=30.0)
    async with serving(entries=[slow], max_requests=2, max_queue=1) as service:
        calls = [service.call()() for _ in range(2)]
        for call in calls:
            assert (await call.read()).HasField("info")
        calls.append(service.call()())
        while not service.servicer.queues["fake"].depth:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.005)
        error = await service.refusal()
        assert error.reason == "OVERLOADED"
        assert error.retry_after
        for call in calls:
            call.cancel()
        await service.idle()


async def test_a_deadline_ends_the_work_and_what_was_done_is_charged() -> None:
    async with serving(entries=[entry(seconds_per_step=0.05)]) as service:
        request = asked(denoising={"steps": 150})
        call = service.stub.GenerateImage(request, metadata=tenant_metadata(), timeout=0.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in call]
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        booking = (await service.admission.closed(1))[0]
        await service.idle()
        assert booking.usage is not None
        assert booking.usage.millimegapixel_steps == -(-service.engine.steps * SIDE * SIDE // 1000)
        assert 0 < service.engine.steps < 150


async def test_a_model_that_is_not_loaded_is_unavailable_and_costs_nothing(
    service: Running,
) -> None:
    await service.engine.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.GenerateImage(asked(), metadata=tenant_metadata()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(caught.value).reason == "MODEL_NOT_READY"
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"


async def test_an_unloaded_model_is_loaded_by_its_next_picture(service: Running) -> None:
    await service.engine.unload_model("fake-pictures")
    assert (await service.draw()).usage.images == 1
    assert service.engine.models()[0].last_used_at is not None
