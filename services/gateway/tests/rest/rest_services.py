"""The services behind the gateway under test, with their fake engines, and their catalogue.

`rest_gateway.py` starts them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atrium_common.catalogue import Catalogue
from atrium_common.testing import running_server
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import Pixels
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

CATALOGUE = """
models:
  - {id: fake-chat, service: llm, capabilities: [chat, completion], engine: fake,
     aliases: [gpt-4o-mini], context_length: 8192}
  - {id: fake-slow, service: llm, capabilities: [chat, completion], engine: fake,
     context_length: 8192,
     options: {reply_tokens: 300, tokens_per_step: 1, tokens_per_second: 300}}
  - {id: fake-embedding, service: llm, capabilities: [embedding], engine: fake,
     aliases: [text-embedding-3-small], context_length: 512, embedding_dimensions: 8}
  - {id: fake-wide, service: llm, capabilities: [embedding], engine: fake,
     context_length: 64, embedding_dimensions: 1536}
  - {id: fake-speech, service: tts, capabilities: [speech], engine: fake,
     aliases: [tts-1, tts-1-hd, gpt-4o-mini-tts], price: {million_characters: 15}}
  - {id: fake-slow-speech, service: tts, capabilities: [speech], engine: fake,
     options: {delay_seconds: 0.1, draws: false, instructable: false, clones: false}}
  - {id: fake-whisper, service: stt, capabilities: [transcription], engine: fake,
     aliases: [whisper-1]}
  - {id: fake-pictures, service: text2image, capabilities: [text-to-image], engine: fake,
     aliases: [gpt-image-1, dall-e-3], options: {default_steps: 8},
     price: {image: 2, megapixel_step: 1}}
  - {id: fake-slow-pictures, service: text2image, capabilities: [text-to-image], engine: fake,
     options: {seconds_per_step: 0.01, default_steps: 150}}
  - {id: fake-edits, service: img2img, capabilities: [image-to-image], engine: fake,
     aliases: [gpt-image-1, dall-e-2], options: {default_steps: 10}}
  - {id: fake-slow-edits, service: img2img, capabilities: [image-to-image], engine: fake,
     options: {seconds_per_step: 0.01, default_steps: 150}}
  - {id: fake-vision, service: img2text, capabilities: [image-to-text], engine: fake,
     aliases: [gpt-4o], context_length: 8192, price: {image: 1}}
  - {id: fake-slow-vision, service: img2text, capabilities: [image-to-text], engine: fake,
     context_length: 8192, options: {seconds_per_step: 0.01}}
  - {id: fake-seer, service: llm, capabilities: [chat, image-to-text], engine: fake,
     context_length: 8192}
  - {id: fake-ocr, service: img2text, capabilities: [ocr], engine: fake, price: {page: 2}}
  - {id: fake-slow-ocr, service: img2text, capabilities: [ocr], engine: fake,
     options: {seconds_per_page: 0.05}}
adapters:
  - {id: fake-lora, kind: lora, models: [fake-pictures, fake-edits],
     digest: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
"""


class Prudish:
    """A safety check that refuses what a test says, by the mean of its pixels."""

    def __init__(self) -> None:
        self.refuses: Callable[[float], bool] = lambda mean: False

    async def unsafe(self, pixels: Pixels) -> bool:
        return self.refuses(float(pixels.mean()))


@asynccontextmanager
async def running_llm(catalogue: Catalogue, **settings: Any) -> AsyncIterator[tuple[Any, int]]:
    """Runs the text service; gives its fake engine and its port."""
    router = open_llm(catalogue.for_service("llm"), store=WeightStore(Path("unused")))
    servicer = TextGenerationServicer(router, catalogue)
    async with running_server(servicer, router, **settings) as service:
        yield router.engines[0], service.port


@asynccontextmanager
async def running_stt(catalogue: Catalogue) -> AsyncIterator[tuple[Any, int]]:
    """Runs the transcription service; gives its fake engine and its port."""
    router = open_stt(catalogue.for_service("stt"), store=WeightStore(Path("unused")))
    servicer = TranscriptionServicer(router, catalogue)
    async with running_server(servicer, router, drain_seconds=0.1) as service:
        yield router.engines[0], service.port


@asynccontextmanager
async def running_tts(catalogue: Catalogue, folder: Path) -> AsyncIterator[tuple[Any, int]]:
    """Runs the speech service; gives its fake engine and its port."""
    router = open_tts(catalogue.for_service("tts"), store=WeightStore(Path("unused")))
    servicer = SpeechServicer(
        router, catalogue, speaker=Speaker(router), voices=VoiceStore(folder / "voices")
    )
    async with running_server(servicer, router) as service:
        yield router.engines[0], service.port


@asynccontextmanager
async def running_img2text(catalogue: Catalogue) -> AsyncIterator[tuple[Any, int]]:
    """Runs the service that sees; gives its fake engine and its port."""
    router = open_img2text(catalogue.for_service("img2text"), store=WeightStore(Path("unused")))
    servicer = ImageUnderstandingServicer(router, catalogue, intake=Intake())
    async with running_server(servicer, router) as service:
        yield router.engines[0], service.port


@asynccontextmanager
async def running_pictures(
    catalogue: Catalogue, safety: Prudish
) -> AsyncIterator[tuple[Any, int, Any, int]]:
    """Runs the services that draw and edit; gives their fake engines and their ports."""
    store, finisher = WeightStore(Path("unused")), Finisher(safety=safety)
    drawing = open_text2image(
        catalogue.for_service("text2image"), store=store, adapters=catalogue.adapters
    )
    editing = open_img2img(
        catalogue.for_service("img2img"), store=store, adapters=catalogue.adapters
    )
    draws = TextToImageServicer(drawing, catalogue, studio=Studio(drawing, finisher=finisher))
    edits = ImageEditServicer(
        editing, catalogue, studio=Studio(editing, finisher=finisher), uploads=Uploads()
    )
    async with running_server(draws, drawing) as one, running_server(edits, editing) as other:
        yield drawing.engines[0], one.port, editing.engines[0], other.port
