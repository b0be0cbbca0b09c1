"""Calls to the six services past the gateway, as a tenant's own program makes them.

Each entry of `DIRECT` sends one request of fixed size; with ``slow`` on a model that takes its
time, so that its caller may leave. What comes back is a stream of messages that carry `usage`.
"""

import hashlib
import io
import wave
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc.aio
from PIL import Image

from atrium.common.v1 import usage_pb2
from atrium.img2img.v1 import img2img_pb2, img2img_pb2_grpc
from atrium.img2text.v1 import img2text_pb2, img2text_pb2_grpc
from atrium.llm.v1 import llm_pb2, llm_pb2_grpc
from atrium.stt.v1 import stt_pb2, stt_pb2_grpc
from atrium.text2image.v1 import text2image_pb2, text2image_pb2_grpc
from atrium.tts.v1 import tts_pb2, tts_pb2_grpc
from atrium_common.chunks import split
from atrium_common.testing.pictures import gradient, saved

Metadata = tuple[tuple[str, str], ...]
Open = Callable[[grpc.aio.Channel, Metadata, bool], Any]
"""Starts the call; the flag asks for the slow model."""

PICTURE = saved(gradient(64, 64))
SENTENCE = "The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True)
class Direct:
    """One kind of call.

    Attributes:
        service: Which service takes it.
        capability: What it counts as.
        open: Starts it.
    """

    service: str
    capability: str
    open: Open

    async def usages(
        self, channel: grpc.aio.Channel, metadata: Metadata, *, slow: bool = False
    ) -> AsyncIterator[usage_pb2.Usage]:
        """Tells what each message says was consumed so far; cancels the call when closed."""
        call = self.open(channel, metadata, slow)
        try:
            if isinstance(call, grpc.aio.UnaryUnaryCall):
                yield (await call).usage
                return
            async for message in call:
                yield message.usage
        finally:
            call.cancel()

    async def run(self, channel: grpc.aio.Channel, metadata: Metadata) -> usage_pb2.Usage:
        """Calls and reads to the end; returns the last usage."""
        last = usage_pb2.Usage()
        async with aclosing(self.usages(channel, metadata)) as usages:
            async for usage in usages:
                last = usage
        return last


def bearer(key: str, request_id: str) -> Metadata:
    """What a tenant's program sends along."""
    return (("authorization", f"Bearer {key}"), ("x-request-id", request_id))


def recording(seconds: int) -> bytes:
    """A WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * 16_000 * seconds))
    return file.getvalue()


def _job(slow: bool) -> llm_pb2.GenerationJob:
    said = llm_pb2.ChatMessage(
        role=llm_pb2.ROLE_USER, content=[llm_pb2.ContentPart(text="What is the capital?")]
    )
    return llm_pb2.GenerationJob(
        model="fake-slow" if slow else "fake-chat",
        chat=llm_pb2.ChatInput(messages=[said]),
        sampling=llm_pb2.SamplingParams(max_tokens=3000 if slow else 16),
    )


def _stream(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
    request = llm_pb2.StreamGenerateTextRequest(job=_job(slow))
    return stub.StreamGenerateText(request, metadata=metadata)


def _generate(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
    return stub.GenerateText(llm_pb2.GenerateTextRequest(job=_job(slow)), metadata=metadata)


def _embed(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
    request = llm_pb2.EmbedTextRequest(
        model="fake-embedding", inputs=[llm_pb2.EmbeddingInput(text="some words")]
    )
    return stub.EmbedText(request, metadata=metadata)


def _speak(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = tts_pb2_grpc.SpeechSynthesisServiceStub(channel)
    request = tts_pb2.SynthesizeSpeechRequest(
        model="fake-slow-speech" if slow else "fake-speech",
        text=SENTENCE * (40 if slow else 2),
        format=tts_pb2.AUDIO_FORMAT_PCM,
    )
    return stub.SynthesizeSpeech(request, metadata=metadata)


def _transcribe(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = stt_pb2_grpc.TranscriptionServiceStub(channel)
    config = stt_pb2.TranscriptionConfig(model="fake-slow-whisper" if slow else "fake-whisper")
    file = recording(60 if slow else 3)
    kind = stt_pb2.TranscribeAudioRequest
    return stub.TranscribeAudio(_upload(kind, config, file), metadata=metadata)


def _draw(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = text2image_pb2_grpc.TextToImageServiceStub(channel)
    request = text2image_pb2.GenerateImageRequest(
        model="fake-slow-pictures" if slow else "fake-pictures", prompt="three stars"
    )
    return stub.GenerateImage(request, metadata=metadata)


def _edit(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = img2img_pb2_grpc.ImageEditServiceStub(channel)
    config = img2img_pb2.EditConfig(
        model="fake-slow-edits" if slow else "fake-edits", prompt="three stars", strength=1
    )
    kind = img2img_pb2.EditImageRequest
    return stub.EditImage(_upload(kind, config, PICTURE, part="image_"), metadata=metadata)


def _ask(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = img2text_pb2_grpc.ImageUnderstandingServiceStub(channel)
    config = img2text_pb2.QuestionConfig(
        model="fake-slow-vision" if slow else "fake-vision",
        question=" ".join(["why"] * (200 if slow else 4)),
    )
    kind = img2text_pb2.AnswerQuestionRequest
    return stub.AnswerQuestion(_upload(kind, config, PICTURE), metadata=metadata)


def _read(channel: grpc.aio.Channel, metadata: Metadata, slow: bool) -> Any:
    stub = img2text_pb2_grpc.ImageUnderstandingServiceStub(channel)
    config = img2text_pb2.ExtractionConfig(model="fake-slow-ocr" if slow else "fake-ocr")
    kind = img2text_pb2.ExtractTextRequest
    return stub.ExtractText(_upload(kind, config, pages(40 if slow else 2)), metadata=metadata)


def _upload(kind: type[Any], config: object, data: bytes, part: str = "") -> Iterable[Any]:
    """The messages of an upload: what to do, the pieces, the end."""
    yield kind(config=config)
    for piece in split(data):
        yield kind(**{f"{part}chunk": {"data": piece}})
    yield kind(**{f"{part}end": {"sha256": hashlib.sha256(data).digest(), "size": len(data)}})


def pages(count: int) -> bytes:
    """A TIFF of several small pages."""

    first, *others = (Image.fromarray(gradient(64, 64)) for _ in range(count))
    return saved(first, "TIFF", save_all=True, append_images=others)


DIRECT: Mapping[str, Direct] = {
    "text": Direct("llm", "chat", _generate),
    "streamed text": Direct("llm", "chat", _stream),
    "embedding": Direct("llm", "embedding", _embed),
    "speech": Direct("tts", "speech", _speak),
    "transcript": Direct("stt", "transcription", _transcribe),
    "picture": Direct("text2image", "text-to-image", _draw),
    "edit": Direct("img2img", "image-to-image", _edit),
    "answer": Direct("img2text", "image-to-text", _ask),
    "pages": Direct("img2text", "image-to-text", _read),
}
"""At least one call of each service."""
