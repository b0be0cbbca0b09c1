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
from atrium_common.testing import running_server
from tests.kit.fake_services import SERVICES, make_service

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
    catalogue = Catalogue.load(catalogue_file(folder))
    found: dict[str, Fake] = {}
    async with AsyncExitStack() as stack:
        for name, port in zip(SERVICES, ports, strict=True):
            made = make_service(name, catalogue, folder=folder)
            running = running_server(
                made.servicer, made.router, admission_target=admission_target, port=port
            )
            server = await stack.enter_async_context(running)
            found[name] = Fake(server.port, made.router.engines[0])
        yield found


def catalogue_file(folder: Path) -> Path:
    """Writes `CATALOGUE` into `folder`."""
    file = folder / "catalogue.yaml"
    file.write_text(CATALOGUE)
    return file


async def _serve(folder: Path, admission_target: str, ports: Sequence[int]) -> None:
    async with running_fakes(folder, admission_target=admission_target, ports=ports):
        print(READY, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, where, target, *numbers = sys.argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(where), target, [int(number) for number in numbers]))
