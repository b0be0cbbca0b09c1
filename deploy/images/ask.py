"""Asks a service once for its work, as the gateway would: ``python ask.py SERVICE``.

`check.sh` runs it inside an image that it has started, with the image's own packages and the
starter's models. It prints what came back, and fails where that is nothing.
"""

import hashlib
import http.client
import io
import os
import struct
import sys
import wave
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from itertools import cycle, islice
from typing import Any

import grpc

from atrium.common.v1.media_pb2 import MediaChunk, MediaEnd
from atrium.img2img.v1 import img2img_pb2, img2img_pb2_grpc
from atrium.img2text.v1 import img2text_pb2, img2text_pb2_grpc
from atrium.llm.v1 import llm_pb2, llm_pb2_grpc
from atrium.stt.v1 import stt_pb2, stt_pb2_grpc
from atrium.text2image.v1 import text2image_pb2, text2image_pb2_grpc
from atrium.tts.v1 import tts_pb2, tts_pb2_grpc
from atrium_common.interceptors.metadata import RESERVATION, SERVICE, TENANT
from atrium_common.probe import PORTS

SECONDS = 240
"""Longest wait for an answer; two busy cores do each of these in less."""


def text2image(channel: grpc.Channel) -> str:
    """Has a picture drawn."""
    request = text2image_pb2.GenerateImageRequest(prompt="a red circle")
    stub = text2image_pb2_grpc.TextToImageServiceStub(channel)
    answers = _call(stub.GenerateImage, request)
    return _size(answer.chunk.chunk.data for answer in answers)


def img2img(channel: grpc.Channel) -> str:
    """Has a picture drawn anew."""
    message, picture = img2img_pb2.EditImageRequest, _picture()
    steps = (
        message(config=img2img_pb2.EditConfig(prompt="a blue square")),
        message(image_chunk=MediaChunk(data=picture)),
        message(image_end=_end(picture)),
    )
    stub = img2img_pb2_grpc.ImageEditServiceStub(channel)
    answers = _call(stub.EditImage, iter(steps))
    return _size(answer.chunk.chunk.data for answer in answers)


def img2text(channel: grpc.Channel) -> str:
    """Has a picture described."""
    message, picture = img2text_pb2.DescribeImageRequest, _picture()
    steps = (
        message(config=img2text_pb2.DescriptionConfig()),
        message(chunk=MediaChunk(data=picture)),
        message(end=_end(picture)),
    )
    stub = img2text_pb2_grpc.ImageUnderstandingServiceStub(channel)
    answers = _call(stub.DescribeImage, iter(steps))
    return " / ".join(caption.text for answer in answers for caption in answer.captions)


def tts(channel: grpc.Channel) -> str:
    """Has a sentence spoken."""
    request = tts_pb2.SynthesizeSpeechRequest(text="It works.", format=tts_pb2.AUDIO_FORMAT_MP3)
    stub = tts_pb2_grpc.SpeechSynthesisServiceStub(channel)
    return _size(answer.chunk.data for answer in _call(stub.SynthesizeSpeech, request))


def stt(channel: grpc.Channel) -> str:
    """Has a tone listened to: no speech, but told to be some, it is decoded like it."""
    message, tone = stt_pb2.TranscribeAudioRequest, _tone()
    steps = (
        message(config=stt_pb2.TranscriptionConfig(language="en", voice_activity_detection=False)),
        message(chunk=MediaChunk(data=tone)),
        message(end=_end(tone)),
    )
    stub = stt_pb2_grpc.TranscriptionServiceStub(channel)
    *_, last = _call(stub.TranscribeAudio, iter(steps))
    seconds = last.usage.input_audio.ToTimedelta().total_seconds()
    return f"{seconds:g} s were heard" if seconds else ""


def llm(channel: grpc.Channel) -> str:
    """Has a chat answered."""
    part = llm_pb2.ContentPart(text="Say hello.")
    message = llm_pb2.ChatMessage(role=llm_pb2.ROLE_USER, content=[part])
    job = llm_pb2.GenerationJob(
        chat=llm_pb2.ChatInput(messages=[message]),
        sampling=llm_pb2.SamplingParams(max_tokens=8),
    )
    stub = llm_pb2_grpc.TextGenerationServiceStub(channel)
    answer = _call(stub.GenerateText, llm_pb2.GenerateTextRequest(job=job))
    return f"{answer.usage.output_tokens} tokens" if answer.usage.output_tokens else ""


def gateway() -> str:
    """Is refused as a stranger, in the API's own words: nobody has a key here."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=SECONDS)
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    told = b'"error"' in answer.read()
    return "strangers are refused" if told and answer.status == HTTPStatus.UNAUTHORIZED else ""


SERVICES: Mapping[str, Callable[[grpc.Channel], str]] = {
    each.__name__: each for each in (text2image, img2img, img2text, tts, stt, llm)
}


def _call(method: Any, request: object) -> Any:  # the stubs have no types
    metadata = (
        (SERVICE, os.environ["ATRIUM_SERVICE_CREDENTIAL"]),
        (TENANT, "images-check"),
        (RESERVATION, "images-check"),
    )
    return method(request, metadata=metadata, timeout=SECONDS)


def _size(pieces: Iterable[bytes]) -> str:
    size = sum(map(len, pieces))
    return f"{size} bytes" if size else ""


def _end(data: bytes) -> MediaEnd:
    return MediaEnd(sha256=hashlib.sha256(data).digest(), size=len(data))


def _picture() -> bytes:
    """A red square; only the images that take pictures have what writes one."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()


def _tone() -> bytes:
    """Two seconds of 400 Hz, as WAV."""
    samples = islice(cycle([9_000] * 20 + [-9_000] * 20), 32_000)
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(16_000)
        written.writeframes(struct.pack("<32000h", *samples))
    return file.getvalue()


def main(service: str) -> int:
    """Returns 0 where the service did its work, else 1."""
    if service == "gateway":
        came = gateway()
    else:
        with grpc.insecure_channel(f"127.0.0.1:{PORTS[service]}") as channel:
            came = SERVICES[service](channel)
    print(came or "nothing came back")  # noqa: T201
    return 0 if came else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
