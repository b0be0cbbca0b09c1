"""What comes up: files that are none, broken order, bounds. Nothing is charged, all goes on."""

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc.aio
import numpy as np
import pytest
from editing_service import Running, Serve, asked, entry, photo, png, upload
from PIL import Image, ImageDraw

from atrium.img2img.v1 import img2img_pb2 as pb
from atrium_common.images import ImageLimits
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import gateway_metadata, tenant_metadata
from atrium_img2img import uploads as uploads_module
from atrium_img2img.uploads import UploadLimits

GOOD = png(photo())
MASK = png(np.zeros((64, 64), np.uint8))


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(photo(seed=seed)) for seed in (1, 2, 3)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of black pixels, a thousandth of its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packed = zlib.compressobj()
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packed.compress(row) for _ in range(min(height, 2000))) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
BROKEN = {
    "text": b"no picture at all " * 50,
    "svg": SVG,
    "gif": encoded(photo(), "GIF"),
    "animated gif": animated("GIF"),
    "animated webp": animated("WEBP"),
    "animated png": animated("PNG"),
    "bmp": encoded(photo(), "BMP"),
    "tiff": encoded(photo(), "TIFF"),
    "cut png": GOOD[: len(GOOD) // 2],
    "cut jpeg": encoded(photo(256, 256), "JPEG")[:-4000],
    "cut webp": encoded(photo(256, 256), "WEBP")[:-100],
    "only a header": GOOD[:8],
    "changed png": GOOD[:60] + b"\xff\x00\xff" + GOOD[63:],
    "bomb": bomb(30_000, 30_000),
    "wide": bomb(10**6, 64),
    "high": bomb(8, 10**6),
    "gif and script": b"GIF89a/*" + GOOD + b"*/=1;alert(1)",
    "pdf before a png": b"%PDF-1.4\n" + GOOD,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("place", ["image", "mask"])
async def test_what_is_no_picture_is_refused_and_costs_nothing(
    shared: Running, name: str, place: str
) -> None:
    data, started = BROKEN[name], shared.engine.started
    requests = asked(GOOD, mask=data) if place == "mask" else asked(data)
    error = await shared.refusal(requests, tenant_metadata())
    assert (error.reason, error.field) == ("INVALID_MEDIA", f"{place}_chunk")
    assert len(error.message) < 300
    await asyncio.wait_for(shared.admission.last.closed.wait(), 5)
    assert shared.admission.last.outcome == "REFUNDED"
    assert shared.engine.started == started
    assert len((await shared.edit(GOOD)).pictures) == 1


async def test_what_follows_a_picture_in_its_file_goes_nowhere(shared: Running) -> None:
    archive = GOOD + b"PK\x03\x04" + b"<script>alert(1)</script>" * 40
    answer = await shared.edit(archive, strength=0.0)
    np.testing.assert_array_equal(answer.pictures[0].pixels, photo())
    assert b"script" not in answer.pictures[0].data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_orientation_is_applied_before_size_and_mask(shared: Running, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 47, 63), "red")  # the left half: then the upper one
    out = io.BytesIO()
    image.save(out, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    mask = np.zeros((96, 64), np.uint8)  # of the size as it is seen
    answer = await shared.edit(
        out.getvalue(), mask=png(mask), strength=0.0, resize_mode=pb.RESIZE_MODE_NONE
    )
    pixels = answer.pictures[0].pixels.astype(int)
    assert pixels.shape == (96, 64, 3)
    assert np.all(np.abs(pixels[:40] - (255, 0, 0)) < 12)
    assert np.all(np.abs(pixels[56:] - 255) < 12)


async def test_a_mask_of_another_size_is_refused(shared: Running) -> None:
    wrong = png(np.zeros((64, 72), np.uint8))
    error = await shared.refusal(asked(GOOD, mask=wrong))
    assert (error.reason, error.field) == ("INVALID_MEDIA", "mask_chunk")
    several = asked(GOOD, png(photo(128, 64)), mask=MASK)
    error = await shared.refusal(several)
    assert (error.reason, error.field) == ("INVALID_MEDIA", "mask_chunk")


def end(kind: str = "image", **fields: object) -> pb.EditImageRequest:
    return pb.EditImageRequest(**{f"{kind}_end": fields})  # type: ignore[arg-type]


ONE = asked(GOOD)
TWO = asked(GOOD, GOOD)
MASKED = asked(GOOD, mask=MASK)
MASK_PARTS = upload(MASK, "mask")
VIOLATIONS = {
    "nothing": ([], "config", "INVALID_ARGUMENT"),
    "no config": (ONE[1:], "config", "INVALID_ARGUMENT"),
    "two configs": ([ONE[0], ONE[0]], "config", "INVALID_ARGUMENT"),
    "a config in the midst": ([*ONE[:2], ONE[0]], "config", "INVALID_ARGUMENT"),
    "an empty message": ([ONE[0], pb.EditImageRequest()], "step", "INVALID_ARGUMENT"),
    "a mask for a picture": ([ONE[0], *upload(MASK, "mask")], "mask_chunk", "INVALID_ARGUMENT"),
    "a mask inside a picture": (
        [*ONE[:2], *upload(MASK, "mask")],
        "mask_chunk",
        "INVALID_ARGUMENT",
    ),
    "a mask not announced": ([*ONE, *upload(MASK, "mask")], "mask_chunk", "INVALID_ARGUMENT"),
    "a picture for the mask": ([*MASKED[:3], *upload(GOOD)], "image_chunk", "INVALID_ARGUMENT"),
    "a picture too many": ([*ONE, *upload(GOOD)], "image_chunk", "INVALID_ARGUMENT"),
    "two masks": ([*MASKED, *MASK_PARTS], "mask_chunk", "INVALID_ARGUMENT"),
    "no picture": (ONE[:1], "image_end", "UPLOAD_INCOMPLETE"),
    "no end": (ONE[:-1], "image_end", "UPLOAD_INCOMPLETE"),
    "a picture missing": (TWO[:3], "image_end", "UPLOAD_INCOMPLETE"),
    "no mask": (MASKED[:3], "mask_end", "UPLOAD_INCOMPLETE"),
    "an empty picture": ([ONE[0], *upload(b"")], None, "UPLOAD_EMPTY"),
    "a wrong size": (
        [*ONE[:-1], end(sha256=ONE[-1].image_end.sha256, size=-1)],
        None,
        "UPLOAD_INCOMPLETE",
    ),
    "a wrong digest": ([*ONE[:-1], end(sha256=bytes(32), size=len(GOOD))], None, "UPLOAD_CORRUPT"),
    "no digest": ([*ONE[:-1], end(size=len(GOOD))], None, "UPLOAD_CORRUPT"),
    "a large chunk": (
        [ONE[0], pb.EditImageRequest(image_chunk={"data": bytes(1024**2 + 1)})],
        None,
        "INVALID_ARGUMENT",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_every_breach_of_order_is_named(shared: Running, name: str) -> None:
    requests, field, reason = VIOLATIONS[name]
    started = shared.engine.started
    error = await shared.refusal(requests)
    assert error.reason == reason
    assert field in (None, error.field)
    assert shared.engine.started == started
    await shared.idle()


async def test_uploads_are_bounded_in_bytes_and_pixels(serve: Serve) -> None:
    limits = UploadLimits(images=ImageLimits(max_bytes=100_000, max_pixels=10_000))
    async with serve(limits=limits) as service:
        for data in (bytes(100_001), png(photo(104, 100))):
            error = await service.refusal(asked(data))
            assert (error.reason, error.field) == ("INVALID_MEDIA", "image_chunk")
        assert len((await service.edit(png(photo(100, 100)))).pictures) == 1


async def test_what_all_requests_hold_is_bounded(serve: Serve) -> None:
    # A tenant holds two pictures of 64 x 64, or one and its mask; all tenants hold twice that.
    async with serve(limits=UploadLimits(max_held_pixels=4 * 64 * 64)) as service:
        assert len((await service.edit(GOOD, GOOD)).pictures) == 2
        assert len((await service.edit(GOOD, mask=MASK)).pictures) == 1
        for requests in (asked(GOOD, GOOD, GOOD), asked(GOOD, GOOD, mask=MASK)):
            error = await service.refusal(requests)
            assert error.reason == "OVERLOADED"
            assert error.retry_after
        assert service.uploads.held_pixels == 0


async def test_a_tenant_that_floods_leaves_room_for_others(serve: Serve) -> None:
    slow = entry(seconds_per_step=30.0)
    limits = UploadLimits(max_held_pixels=4 * 64 * 64)
    async with serve(entries=[slow], limits=limits) as service:
        calls = [service.call(asked(GOOD), gateway_metadata(tenant="flood")) for _ in range(2)]
        for call in calls:
            assert (await call.read()).HasField("info")
        error = await service.refusal(asked(GOOD), gateway_metadata(tenant="flood"))
        assert error.reason == "OVERLOADED"
        other = service.call(asked(GOOD), gateway_metadata(tenant="acme"))
        assert (await other.read()).HasField("info")
        for call in (*calls, other):
            call.cancel()
        await service.idle()


async def test_few_uploads_are_decoded_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = 0
    read = uploads_module.read_picture

    def watched(*args: object, **options: object) -> object:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            return read(*args, **options)  # type: ignore[arg-type]
        finally:
            now -= 1

    monkeypatch.setattr(uploads_module, "read_picture", watched)
    data = png(photo(512, 512))
    async with serve(limits=UploadLimits(max_decoding=2)) as service:
        await asyncio.gather(*(service.edit(data, data) for _ in range(8)))
    assert most <= 2


async def test_who_sends_nothing_is_sent_away(serve: Serve) -> None:
    async def stalls(count: int) -> AsyncIterator[pb.EditImageRequest]:
        for request in ONE[:count]:
            yield request
        await asyncio.sleep(60)

    async with serve(limits=UploadLimits(idle=timedelta(seconds=0.1))) as service:
        for count in (1, 2, len(ONE)):  # before, in and after the picture
            call = service.stub.EditImage(stalls(count), metadata=tenant_metadata())
            error = await _error(call)
            assert error == "UPLOAD_IDLE"
            call.cancel()
        assert service.engine.started == 0


async def _error(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()  # type: ignore[attr-defined]
    return from_rpc_error(caught.value).reason


async def test_a_caller_who_leaves_while_uploading_pays_nothing(service: Running) -> None:
    async def half() -> AsyncIterator[pb.EditImageRequest]:
        for request in asked(GOOD, GOOD)[:4]:
            yield request
        await asyncio.sleep(60)

    call = service.stub.EditImage(half(), metadata=tenant_metadata())
    async with asyncio.timeout(5):
        while not service.uploads.held_pixels:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.002)
    call.cancel()
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"
    await service.idle()
    assert service.engine.started == 0
