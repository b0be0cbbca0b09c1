"""All six services with their fake engines, in one process: light enough to be started by a test.

Run as its own process: ``python -m tests.kit.fakes FOLDER ADMISSION_TARGET PORT...`` with six
ports in the order of `SERVICES`; it prints a line when all of them serve.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from atrium_common.catalogue import Catalogue
from atrium_common.service import Servicer
from atrium_common.testing import running_server
from atrium_common.weights import WeightStore
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.studio import Studio
from atrium_img2img.engines import open_engines as open_img2img
from atrium_img2img.servicer import ImageEditServicer
from atrium_img2img.uploads import Uploads
from atrium_img2text.engines import open_engines as open_img2text
from atrium_img2text.intake import Intake
from atrium_img2text.servicer import ImageUnderstandingServicer
from atrium_llm.engines import open_engines as open_llm
from atrium_llm.servicer import TextGenerationServicer
from atrium_stt.engines import open_engines as open_stt
from atrium_stt.servicer import TranscriptionServicer
from atrium_text2image.engines import open_engines as open_text2image
from atrium_text2image.servicer import TextToImageServicer
from atrium_tts.engines import open_engines as open_tts
from atrium_tts.servicer import SpeechServicer
from atrium_tts.speech import Speaker
from atrium_tts.voices import VoiceStore

SERVICES = ("llm", "stt", "tts", "text2image", "img2img", "img2text")
READY = "the fakes serve"

CATALOGUE = """
models:
  - {id: fake-chat, service: llm, capabilities: [chat, completion], engine: fake,
     context_length: 8192, price: {million_input_tokens: 1, million_output_tokens: 2}}
  - {id: fake-slow, service: llm, capabilities: [chat, completion], engine: fake,
     context_length: 8192,
     options: {reply_tokens: 3000, tokens_per_step: 1, tokens_per_second: 300}}
  - {id: fake-embedding, service: llm, capabilities: [embedding], engine: fake,
     context_length: 512, embedding_dimensions: 8}
  - {id: fake-whisper, service: stt, capabilities: [transcription], engine: fake,
     price: {input_audio_minute: 3}}
  - {id: fake-slow-whisper, service: stt, capabilities: [transcription], engine: fake,
     options: {delay_seconds: 0.05, segment_seconds: 1}}
  - {id: fake-speech, service: tts, capabilities: [speech], engine: fake,
     price: {million_characters: 15}}
  - {id: fake-slow-speech, service: tts, capabilities: [speech], engine: fake,
     options: {delay_seconds: 0.1}}
  - {id: fake-pictures, service: text2image, capabilities: [text-to-image], engine: fake,
     options: {default_steps: 4}, price: {image: 2, megapixel_step: 1}}
  - {id: fake-slow-pictures, service: text2image, capabilities: [text-to-image], engine: fake,
     options: {seconds_per_step: 0.05, default_steps: 150}}
  - {id: fake-edits, service: img2img, capabilities: [image-to-image], engine: fake,
     options: {default_steps: 4}}
  - {id: fake-slow-edits, service: img2img, capabilities: [image-to-image], engine: fake,
     options: {seconds_per_step: 0.05, default_steps: 150}}
  - {id: fake-vision, service: img2text, capabilities: [image-to-text], engine: fake,
     context_length: 8192, price: {image: 1}}
  - {id: fake-slow-vision, service: img2text, capabilities: [image-to-text], engine: fake,
     context_length: 8192, options: {seconds_per_step: 0.05}}
  - {id: fake-ocr, service: img2text, capabilities: [ocr], engine: fake, price: {page: 2}}
  - {id: fake-slow-ocr, service: img2text, capabilities: [ocr], engine: fake,
     options: {seconds_per_page: 0.2}}
"""


@dataclass(frozen=True)
class Fake:
    """A running service: its gRPC port, and its engine, which counts what it did."""

    port: int
    engine: Any


@asynccontextmanager
async def running_fakes(
    folder: Path, *, admission_target: str, ports: Sequence[int] = (0,) * len(SERVICES)
) -> AsyncIterator[dict[str, Fake]]:
    """Runs the six services; yields them by name.

    Args:
        folder: Where voices are kept.
        admission_target: Admits those who call directly.
        ports: Ports in the order of `SERVICES`; 0 takes a free one.
    """
    catalogue = catalogue_file(folder)
    found: dict[str, Fake] = {}
    async with AsyncExitStack() as stack:
        for (name, (servicer, engine)), port in zip(
            _services(Catalogue.load(catalogue), folder).items(), ports, strict=True
        ):
            running = running_server(servicer, engine, admission_target=admission_target, port=port)
            found[name] = Fake((await stack.enter_async_context(running)).port, engine.engines[0])
        yield found


def catalogue_file(folder: Path) -> Path:
    """Writes `CATALOGUE` into `folder`."""
    file = folder / "catalogue.yaml"
    file.write_text(CATALOGUE)
    return file


def _services(catalogue: Catalogue, folder: Path) -> dict[str, tuple[Servicer, Any]]:
    store = WeightStore(Path("unused"))
    finisher = Finisher(safety=None)
    llm = open_llm(catalogue.for_service("llm"), store=store)
    stt = open_stt(catalogue.for_service("stt"), store=store)
    tts = open_tts(catalogue.for_service("tts"), store=store)
    drawing = open_text2image(catalogue.for_service("text2image"), store=store, adapters=())
    editing = open_img2img(catalogue.for_service("img2img"), store=store, adapters=())
    seeing = open_img2text(catalogue.for_service("img2text"), store=store)
    speech = SpeechServicer(
        tts, catalogue, speaker=Speaker(tts), voices=VoiceStore(folder / "voices")
    )
    draws = TextToImageServicer(drawing, catalogue, studio=Studio(drawing, finisher=finisher))
    edits = ImageEditServicer(
        editing, catalogue, studio=Studio(editing, finisher=finisher), uploads=Uploads()
    )
    return {
        "llm": (TextGenerationServicer(llm, catalogue), llm),
        "stt": (TranscriptionServicer(stt, catalogue), stt),
        "tts": (speech, tts),
        "text2image": (draws, drawing),
        "img2img": (edits, editing),
        "img2text": (ImageUnderstandingServicer(seeing, catalogue, intake=Intake()), seeing),
    }


async def _serve(folder: Path, admission_target: str, ports: Sequence[int]) -> None:
    async with running_fakes(folder, admission_target=admission_target, ports=ports):
        print(READY, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, where, target, *numbers = sys.argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(where), target, [int(number) for number in numbers]))
