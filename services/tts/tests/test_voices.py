"""Cloned voices: made with consent, kept per tenant, deleted with all that was derived."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import grpc
import grpc.aio
import numpy as np
import pytest
from safetensors.numpy import load, save
from speech_service import Running, Serve, entry, upload

from atrium.tts.v1 import tts_pb2 as pb
from atrium_common.errors import AtriumError, Conflict, InternalError, MediaError
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.testing import gateway_metadata, service_metadata, tenant_metadata
from atrium_tts.domain import Gender, VoiceOrder
from atrium_tts.engines.base import Samples
from atrium_tts.engines.fake import FakeEngine
from atrium_tts.voices import NewVoice, VoiceStore

RATE = 16_000


def recording(seconds: float, *, loudness: float = 0.3, container: str = "wav") -> bytes:
    """A file with a tone in it."""
    time = np.arange(round(seconds * RATE)) / RATE
    samples = (32_767 * loudness * np.sin(2 * np.pi * 220 * time)).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        codec = {"wav": "pcm_s16le", "mp3": "libmp3lame", "ogg": "libopus", "flac": "flac"}[
            container
        ]
        stream = output.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


GOOD = recording(6.5)


async def refused(
    service: Running, requests: list[pb.CreateVoiceRequest], *, tenant: str = "acme"
) -> AtriumError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.create(requests, tenant=tenant)
    return from_rpc_error(caught.value)


async def listed(service: Running, tenant: str = "acme", **fields: str) -> list[pb.Voice]:
    reply = await service.stub.ListVoices(
        pb.ListVoicesRequest(**fields), metadata=gateway_metadata(tenant=tenant)
    )
    return list(reply.voices)


async def test_built_in_voices_are_listed_by_model_and_language(serve: Serve) -> None:
    async with serve(entries=[entry("one"), entry("two")]) as service:
        voices = await listed(service)
        assert [voice.id for voice in voices] == ["tone-a", "tone-b", "tone-c", "tone-d"]
        first = voices[0]
        assert (first.name, list(first.models)) == ("Ada", ["one", "two"])
        assert (first.gender, first.license) == (pb.VOICE_GENDER_FEMALE, "CC0-1.0")
        assert "alloy" in first.aliases
        assert not first.cloned
        assert [v.id for v in await listed(service, language="en")] == [
            "tone-a",
            "tone-b",
            "tone-c",
        ]
        assert [v.id for v in await listed(service, language="EN-GB")] == ["tone-c"]
        assert [v.id for v in await listed(service, model="two", language="de-at")] == ["tone-d"]
        assert await listed(service, language="tlh") == []
        for fields, field in (({"model": "three"}, "model"), ({"language": "?"}, "language")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed(service, **fields)
            assert from_rpc_error(caught.value).field == field


@pytest.mark.parametrize("container", ["wav", "mp3", "ogg"])
async def test_a_voice_is_made_spoken_with_and_deleted(service: Running, container: str) -> None:
    made = await service.create(
        upload(
            recording(8.0, container=container),
            name="  My voice ",
            language="DE",
            gender=pb.VOICE_GENDER_NEUTRAL,
        )
    )
    voice = made.voice
    assert (voice.name, voice.cloned, list(voice.models)) == ("My voice", True, ["fake-speech"])
    assert (list(voice.languages), voice.gender) == (["de"], pb.VOICE_GENDER_NEUTRAL)
    assert voice.HasField("create_time")
    assert made.usage.input_audio.ToTimedelta().total_seconds() == pytest.approx(8.0, abs=0.1)
    assert (made.usage.model, made.usage.engine) == ("fake-speech", "fake")
    assert (await listed(service))[-1] == voice
    assert voice in await listed(service, language="de", model="fake-speech")
    assert voice not in await listed(service, language="fr")

    answers = await service.speak(text="Said by me.", voice=voice.id)
    assert answers[0].info.voice == voice.id
    spoken = service.engine.spoken[-1]
    assert spoken.latents is not None
    assert "digest" in load(spoken.latents)
    assert spoken.language == "de"

    gone = pb.DeleteVoiceRequest(voice=voice.id)
    await service.stub.DeleteVoice(gone, metadata=gateway_metadata())
    assert (await service.refusal(text="Hello.", voice=voice.id)).reason == "VOICE_NOT_FOUND"
    assert not [path for path in service.voices.rglob("*") if path.is_file()]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.DeleteVoice(gone, metadata=gateway_metadata())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_is_kept_proves_the_consent_and_holds_no_recording(service: Running) -> None:
    requests = upload(GOOD)
    voice = (await service.create(requests)).voice
    files = {path.name: path for path in service.voices.rglob("*") if path.is_file()}
    assert set(files) == {"voice.json", "latents.safetensors"}
    facts = json.loads(files["voice.json"].read_bytes())
    assert facts["recording_sha256"] == requests[-1].end.sha256.hex()
    assert datetime.fromisoformat(facts["consent_given_at"]) == voice.create_time.ToDatetime(UTC)
    assert files["voice.json"].parent.parent.name != "acme"
    assert files["voice.json"].parent.parent.stat().st_mode & 0o077 == 0


async def test_a_tenant_never_sees_anothers_voice(service: Running) -> None:
    mine = (await service.create(upload(GOOD))).voice
    assert not any(voice.cloned for voice in await listed(service, tenant="rival"))
    request = pb.SynthesizeSpeechRequest(text="Hello.", voice=mine.id)
    delete = pb.DeleteVoiceRequest(voice=mine.id)
    for attempt in (
        service.stub.SynthesizeSpeech(request, metadata=gateway_metadata(tenant="rival")).read(),
        service.stub.DeleteVoice(delete, metadata=gateway_metadata(tenant="rival")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await attempt
        error = from_rpc_error(caught.value)
        assert (error.reason, error.field) == ("VOICE_NOT_FOUND", "voice")
    assert mine in await listed(service)
    # A call of the suite for no tenant sees the built-in ones and deletes nothing.
    suite = await service.stub.ListVoices(pb.ListVoicesRequest(), metadata=service_metadata())
    assert not any(voice.cloned for voice in suite.voices)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.DeleteVoice(delete, metadata=service_metadata())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_built_in_voices_and_odd_ids_can_not_be_deleted(service: Running) -> None:
    outside = service.voices.parent / "precious"
    outside.mkdir()
    for name in ("tone-a", "", "alloy", "../../precious", "voice_" + "0" * 32, "x" * 300):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.DeleteVoice(
                pb.DeleteVoiceRequest(voice=name), metadata=gateway_metadata()
            )
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert outside.exists()


async def test_what_can_not_become_a_voice_is_refused_by_name(serve: Serve) -> None:
    async with serve(entries=[entry("mute", clones=False), entry("able")]) as service:
        cases = [
            ({"consent": False}, "CONSENT_REQUIRED", "config.consent"),
            ({"name": " "}, "INVALID_ARGUMENT", "config.name"),
            ({"name": "x" * 65}, "INVALID_ARGUMENT", "config.name"),
            ({"name": "a\nb"}, "INVALID_ARGUMENT", "config.name"),
            ({"gender": 9}, "INVALID_ARGUMENT", "config.gender"),
            ({"language": "?"}, "INVALID_ARGUMENT", "config.language"),
            ({"language": "tlh"}, "LANGUAGE_UNSUPPORTED", "config.language"),
            ({"model": "mute"}, "VOICE_CLONING_UNSUPPORTED", "config.model"),
            ({"model": "unknown"}, "MODEL_NOT_FOUND", "model"),
        ]
        for config, reason, field in cases:
            error = await refused(service, upload(GOOD, **config))
            assert (error.reason, error.field) == (reason, field)
        # With no name given, the first model that can makes it.
        assert list((await service.create(upload(GOOD))).voice.models) == ["able"]
        other = (await listed(service))[-1].id
        assert (await service.refusal(model="mute", text="Hi there.", voice=other)).field == "voice"


async def test_bad_recordings_are_named_and_nothing_is_kept(service: Running) -> None:
    good = upload(GOOD)
    noise = np.random.default_rng(5).bytes(40_000)
    wrong = pb.CreateVoiceRequest(end={"sha256": bytes(32), "size": len(GOOD)})
    cases = {
        "INVALID_ARGUMENT": [good[1:], [good[0], good[0]], [good[0], pb.CreateVoiceRequest()], []],
        "UPLOAD_INCOMPLETE": [good[:-1], [good[0], good[-1]]],
        "UPLOAD_CORRUPT": [[*good[:-1], wrong]],
        "UPLOAD_EMPTY": [upload(b"")],
        "TOO_LARGE": [upload(bytes(16 * 1024**2 + 1))],
        "AUDIO_FORMAT_UNKNOWN": [upload(noise), upload(b"#EXTM3U\nfile:///etc/passwd\n" * 50)],
        "AUDIO_CORRUPT": [upload(recording(7, container="mp3")[:64] + noise)],
        "AUDIO_TOO_SHORT": [upload(recording(5.9))],
        "AUDIO_TOO_LONG": [upload(recording(31.0)), upload(recording(600.0, container="flac"))],
        "AUDIO_SILENT": [upload(recording(8.0, loudness=0.0)), upload(recording(8, loudness=1e-3))],
    }
    for reason, uploads in cases.items():
        for requests in uploads:
            error = await refused(service, requests)
            assert error.reason == reason
    assert not any(voice.cloned for voice in await listed(service))
    assert not service.voices.exists()
    assert (await service.create(good)).voice.cloned
    assert (await service.create(upload(recording(29.9)))).voice.cloned


async def test_a_direct_caller_pays_for_the_recording_and_nothing_for_a_refused_one(
    service: Running,
) -> None:
    await service.stub.CreateVoice(iter(upload(GOOD)), metadata=tenant_metadata())
    booking = (await service.admission.closed(1))[0]
    assert (booking.outcome, booking.bound.input_audio) == ("COMPLETED", timedelta(seconds=30))
    assert booking.usage is not None
    assert booking.usage.input_audio == timedelta(seconds=6.5)
    for requests in (upload(recording(5)), upload(GOOD, consent=False), upload(GOOD)[:-1]):
        with pytest.raises(grpc.aio.AioRpcError):
            await service.stub.CreateVoice(iter(requests), metadata=tenant_metadata())
    assert [b.outcome for b in await service.admission.closed(4)][1:] == ["REFUNDED"] * 3


class Slow(FakeEngine):
    """Takes its time to clone."""

    def __init__(self) -> None:
        super().__init__([entry()])
        self.cloning = asyncio.Event()

    async def clone(self, model: str, samples: Samples, sample_rate: int) -> bytes:
        if np.abs(samples).max() > 0.9:
            raise MediaError("Nobody speaks.", reason="NO_SPEECH", field="recording")
        self.cloning.set()
        await asyncio.sleep(0.3)
        return await super().clone(model, samples, sample_rate)


async def test_who_leaves_while_the_voice_is_made_pays_and_gets_none(serve: Serve) -> None:
    engine = Slow()
    async with serve(engine) as service:
        call = service.stub.CreateVoice(iter(upload(GOOD)), metadata=tenant_metadata())
        await engine.cloning.wait()
        call.cancel()
        booking = (await service.admission.closed(1))[0]
        assert booking.outcome == "CANCELLED"
        assert booking.usage is not None
        assert booking.usage.input_audio == timedelta(seconds=6.5)
        assert not any(voice.cloned for voice in await listed(service))
        loud = upload(recording(7, loudness=1.0))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.CreateVoice(iter(loud), metadata=tenant_metadata())
        assert from_rpc_error(caught.value).reason == "NO_SPEECH"
        assert (await service.admission.closed(2))[1].outcome == "REFUNDED"


async def test_a_client_that_leaves_during_the_upload_leaves_nothing(service: Running) -> None:
    requests = upload(GOOD)

    async def half() -> AsyncIterator[pb.CreateVoiceRequest]:
        for request in requests[:2]:
            yield request
        await asyncio.sleep(60)

    call = service.stub.CreateVoice(half(), metadata=tenant_metadata())
    await asyncio.sleep(0.1)
    call.cancel()
    assert (await service.admission.closed(1))[0].outcome == "REFUNDED"
    assert service.is_idle


async def test_a_tenant_keeps_as_many_voices_as_it_may(serve: Serve) -> None:
    async with serve(limit=2) as service:
        results = await asyncio.gather(
            *(service.create(upload(GOOD)) for _ in range(4)), return_exceptions=True
        )
        made = [result for result in results if isinstance(result, pb.CreateVoiceResponse)]
        assert len(made) == 2
        assert (await refused(service, upload(GOOD))).reason == "VOICE_LIMIT_REACHED"
        assert (await service.create(upload(GOOD), tenant="other")).voice.cloned
        gone = pb.DeleteVoiceRequest(voice=made[0].voice.id)
        await service.stub.DeleteVoice(gone, metadata=gateway_metadata())
        assert (await service.create(upload(GOOD))).voice.cloned


NEW = NewVoice(
    order=VoiceOrder(name="One", language="de", gender=Gender.MALE),
    model="fake-speech",
    recording_sha256="0" * 64,
    latents=save({"digest": np.zeros(32, np.uint8)}),
)


async def test_the_store_survives_a_restart_and_lists_the_newest_first(tmp_path: Path) -> None:
    times = iter(datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 9))
    store = VoiceStore(tmp_path, now=lambda: next(times), cached=1)
    made = [await store.create("acme", NEW) for _ in range(3)]
    again = VoiceStore(tmp_path)
    assert list(await again.list("acme")) == made[::-1]
    for voice in made * 2:
        found = await store.find("acme", voice.id)
        assert found is not None
        assert (found.voice, found.latents) == (voice, NEW.latents)
    # Deleted by another process: gone here too, although it was in memory.
    assert await again.delete("acme", made[-1].id)
    assert await store.find("acme", made[-1].id) is None
    await store.create("other", NEW)
    await again.delete_tenant("acme")
    assert await store.list("acme") == []
    assert await store.find("acme", made[0].id) is None
    assert len(await store.list("other")) == 1


async def test_a_voice_is_there_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VoiceStore(tmp_path, limit=1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(OSError, match="No space"):
            await store.create("acme", NEW)
    assert await store.list("acme") == []
    home = tmp_path / os.listdir(tmp_path)[0]
    assert not os.listdir(home)
    os.mkdir(home / ".gone-half-deleted")
    voice = await store.create("acme", NEW)
    assert os.listdir(home) == [voice.id]
    with pytest.raises(Conflict):
        await store.create("acme", NEW)


async def test_damaged_latents_are_told_and_not_loaded(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    voice = await store.create("acme", replace(NEW, latents=b"\x80\x04K\x00."))
    with pytest.raises(InternalError) as caught:
        await store.find("acme", voice.id)
    assert caught.value.reason == "VOICE_DAMAGED"
