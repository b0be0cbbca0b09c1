"""The services behind the gateway under test, with their fake engines, and their catalogue.

`rest_gateway.py` starts them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atrium_common.catalogue import Catalogue
from atrium_common.testing import running_server
from atrium_diffusion.domain import Pixels
from tests.kit.fake_services import SafetyCheck, make_service

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
async def running_service(
    name: str,
    catalogue: Catalogue,
    *,
    folder: Path,
    safety: SafetyCheck | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Any, int]]:
    """Runs a service; gives its fake engine and its port."""
    made = make_service(name, catalogue, folder=folder, safety=safety)
    async with running_server(made.servicer, made.router, **settings) as service:
        yield made.router.engines[0], service.port
