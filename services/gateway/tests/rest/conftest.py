"""The whole gateway on real sockets, over the services with their fake engines."""

import asyncio
import io
import json
import socket
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI
from PIL import Image
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from atrium_common.catalogue import Catalogue
from atrium_common.testing import CREDENTIAL, running_server
from atrium_common.weights import WeightStore
from atrium_diffusion.domain import Pixels
from atrium_diffusion.finishing import Finisher
from atrium_diffusion.studio import Studio
from atrium_gateway.app import create_app
from atrium_gateway.auth.keys import make_key
from atrium_gateway.auth.tokens import TokenClaims
from atrium_gateway.core import Core, open_core
from atrium_gateway.deps import Gateway
from atrium_gateway.live import LiveLimits, LiveSessions
from atrium_gateway.middleware.access_log import AccessLog
from atrium_gateway.middleware.body_limit import BodyLimits
from atrium_gateway.pipeline import Pipeline
from atrium_gateway.quota.limits import Limit
from atrium_gateway.rest_server import RestServer, server_config
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import ApiKey, Tenant
from atrium_gateway.upstreams.fleet import open_fleet
from atrium_gateway.usage.reports import EventView
from atrium_img2img.engines import open_engines as open_img2img
from atrium_img2img.servicer import ImageEditServicer
from atrium_img2img.uploads import Uploads
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


@dataclass(frozen=True, kw_only=True)
class Rest:
    """A running gateway and what stands behind it."""

    url: str
    core: Core
    settings: GatewaySettings
    llm_engine: Any
    llm_port: int
    tts_engine: Any
    stt_engine: Any
    drawing_engine: Any
    editing_engine: Any
    safety: Prudish
    stop_stt: Callable[[], Awaitable[None]]
    live: LiveSessions
    log: io.BytesIO
    registry: CollectorRegistry
    closing: AsyncExitStack

    async def key(
        self, tenant: str, *limits: Limit, unlimited: bool = False, roles: tuple[str, ...] = ()
    ) -> str:
        """Makes a tenant, unless there is one, and a key of it."""
        now = datetime.now(UTC)
        if await self.core.tenants.tenant(tenant) is None:
            await self.core.tenants.create_tenant(
                Tenant(
                    id=tenant,
                    name=tenant,
                    blocked=False,
                    unlimited=unlimited,
                    weight=1.0,
                    limits=limits,
                    created_at=now,
                )
            )
        made = make_key(self.settings.resolved_key_pepper())
        await self.core.tenants.create_key(
            ApiKey(
                id=made.id,
                tenant=tenant,
                name="",
                digest=made.digest,
                scopes=frozenset({"*"}),
                roles=frozenset(roles),
                created_at=now,
                expires_at=None,
                revoked_at=None,
            )
        )
        return made.text

    def token(self, tenant: str, **claims: Any) -> str:
        """Mints a token of a tenant that exists."""
        return self.core.tokens.mint(
            TokenClaims(tenant=tenant, subject="someone", lifetime=timedelta(minutes=5), **claims)
        )

    async def events(self, tenant: str) -> list[EventView]:
        """The tenant's ledger, oldest first."""
        now = datetime.now(UTC)
        found = await self.core.reports.events(
            tenant, start=now - timedelta(hours=1), end=now + timedelta(hours=1), limit=1000
        )
        return list(found)[::-1]

    async def settled(self, tenant: str, count: int) -> list[EventView]:
        """The ledger, once it has `count` events and nothing is open."""
        async with asyncio.timeout(20):
            while len(events := await self.events(tenant)) < count:  # noqa: ASYNC110 - a database
                await asyncio.sleep(0.02)
        return events

    def client(self, key: str) -> httpx.AsyncClient:
        """A plain HTTP client."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=30
        )

    def openai(self, key: str) -> AsyncOpenAI:
        """The official client, without retries."""
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)
        self.closing.push_async_callback(client.close)
        return client


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


@asynccontextmanager
async def running_rest(
    folder: Path,
    *,
    llm: bool = True,
    tts: bool = True,
    pictures: bool = True,
    live: LiveLimits | None = None,
    models: str = CATALOGUE,
) -> AsyncIterator[Rest]:
    """Runs the gateway and the services; without one that is not wanted."""
    (folder / "catalogue.yaml").write_text(models)
    catalogue = Catalogue.load(folder / "catalogue.yaml")
    settings = GatewaySettings(
        state_dir=folder / "state",
        catalogue=folder / "catalogue.yaml",
        service_credential=SecretStr(CREDENTIAL),
    )
    async with AsyncExitStack() as stack:
        core = await stack.enter_async_context(open_core(settings, catalogue=catalogue))
        engine, llm_port = None, free_port()
        if llm:
            engine, llm_port = await stack.enter_async_context(running_llm(catalogue))
        stt = await stack.enter_async_context(AsyncExitStack())
        stt_engine, stt_port = await stt.enter_async_context(running_stt(catalogue))
        tts_engine, tts_port = None, free_port()
        if tts:
            tts_engine, tts_port = await stack.enter_async_context(running_tts(catalogue, folder))
        safety = Prudish()
        drawing, drawing_port, editing, editing_port = None, free_port(), None, free_port()
        if pictures:
            running = await stack.enter_async_context(running_pictures(catalogue, safety))
            drawing, drawing_port, editing, editing_port = running
        fleet = await stack.enter_async_context(
            open_fleet(
                llm_target=f"127.0.0.1:{llm_port}",
                stt_target=f"127.0.0.1:{stt_port}",
                tts_target=f"127.0.0.1:{tts_port}",
                text2image_target=f"127.0.0.1:{drawing_port}",
                img2img_target=f"127.0.0.1:{editing_port}",
                service_credential=CREDENTIAL,
            )
        )
        pipeline = Pipeline(core.admission)
        stack.push_async_callback(pipeline.drain)
        gateway = Gateway(
            authenticator=core.authenticator,
            pipeline=pipeline,
            catalogue=catalogue,
            llm=fleet.llm,
            stt=fleet.stt,
            tts=fleet.tts,
            text2image=fleet.text2image,
            img2img=fleet.img2img,
            services=fleet.watches,
            reports=core.reports,
            now=lambda: datetime.now(UTC),
            live=LiveSessions(live),
            max_picture_bytes=2 << 20,
        )
        log, registry = io.BytesIO(), CollectorRegistry()
        app = create_app(
            gateway,
            limits=BodyLimits(
                body_bytes=1 << 20,
                upload_bytes=8 << 20,
                picture_body_bytes=4 << 20,
                idle_seconds=0.5,
            ),
            registry=registry,
            access_log=AccessLog(log),
            cors_origins=("https://app.example",),
        )
        async with asyncio.timeout(10):
            up = {"llm": llm, "stt": True, "tts": tts, "text2image": pictures, "img2img": pictures}
            for name, watch in fleet.watches.items():
                if up[name]:
                    await watch.until_serving()
        port = await stack.enter_async_context(serving(app, gateway.live))
        yield Rest(
            url=f"http://127.0.0.1:{port}",
            core=core,
            settings=settings,
            llm_engine=engine,
            llm_port=llm_port,
            tts_engine=tts_engine,
            stt_engine=stt_engine,
            drawing_engine=drawing,
            editing_engine=editing,
            safety=safety,
            stop_stt=stt.aclose,
            live=gateway.live,
            log=log,
            registry=registry,
            closing=stack,
        )


async def until(done: Callable[[], bool]) -> None:
    """Waits for what nobody announces; at most 10 seconds."""
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - the one place that looks again and again
            await asyncio.sleep(0.01)


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return until


@asynccontextmanager
async def serving(app: Any, live: LiveSessions) -> AsyncIterator[int]:
    """Serves an app over HTTP on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = RestServer(server_config(app, drain_seconds=10), drain=live.drain)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@pytest.fixture(scope="session")
async def rest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rest]:
    """One gateway for all tests; each test uses tenants of its own."""
    async with running_rest(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def start_rest(tmp_path: Path) -> Callable[..., Any]:
    """Starts a gateway of a test's own."""
    return lambda **options: running_rest(tmp_path, **options)


@pytest.fixture
def llm_on() -> Callable[..., Any]:
    """Runs a text service on a given port, for tests that kill one."""
    return running_llm


def free_port() -> int:
    """Finds a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def recording() -> bytes:
    """Twelve seconds of silence as WAV: three of the fake engine's segments."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(2 * 8000 * 12))
    return file.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Makes a picture file: a gradient, in a size, a mode and a format."""

    def make(
        width: int = 64, height: int = 48, *, mode: str = "RGB", shape: str = "PNG", **options: Any
    ) -> bytes:
        rows, columns = np.mgrid[0:height, 0:width]
        channels = [columns * 255 // width, rows * 255 // height, (rows + columns) % 256]
        image = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).convert(mode)
        file = io.BytesIO()
        image.save(file, shape, **options)
        return file.getvalue()

    return make


@pytest.fixture
def pixels() -> Callable[[bytes], Pixels]:
    """Decodes a picture file."""
    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def named_events() -> Callable[[str], list[tuple[str, Any]]]:
    """Reads the names and the data of an event stream."""

    def read(text: str) -> list[tuple[str, Any]]:
        blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
        return [
            (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
            for name, data in blocks
        ]

    return read


@pytest.fixture
def sse() -> Callable[[str], list[Any]]:
    """Reads the data of an event stream; `[DONE]` stays text."""

    def read(text: str) -> list[Any]:
        data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]

    return read
