"""A running gateway over the services, and what its tests ask of it.

The fixtures of `conftest.py` start it.
"""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from rest_services import CATALOGUE, Prudish, running_service
from uuid_utils import uuid7

from atrium_common.catalogue import Catalogue
from atrium_common.testing import CREDENTIAL
from atrium_gateway.app import create_app
from atrium_gateway.auth.keys import make_key
from atrium_gateway.auth.tokens import TokenClaims
from atrium_gateway.core import Core, open_core
from atrium_gateway.deps import Fetcher, Gateway
from atrium_gateway.idempotency.keeper import Keeper
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
    seeing_engine: Any
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
async def running_rest(
    folder: Path,
    *,
    llm: bool = True,
    tts: bool = True,
    pictures: bool = True,
    live: LiveLimits | None = None,
    models: str = CATALOGUE,
    fetcher: Fetcher | None = None,
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
        safety = Prudish()

        async def run(
            name: str, wanted: bool = True, of: AsyncExitStack = stack, **settings: Any
        ) -> tuple[Any, int]:
            """A service's engine and port; only a port where nobody serves, if it is not wanted."""
            if not wanted:
                return None, free_port()
            running = running_service(name, catalogue, folder=folder, safety=safety, **settings)
            return await of.enter_async_context(running)

        engine, llm_port = await run("llm", llm)
        stt = await stack.enter_async_context(AsyncExitStack())
        stt_engine, stt_port = await run("stt", of=stt, drain_seconds=0.1)
        tts_engine, tts_port = await run("tts", tts)
        drawing, drawing_port = await run("text2image", pictures)
        editing, editing_port = await run("img2img", pictures)
        seeing = bool(catalogue.for_service("img2text"))
        seeing_engine, seeing_port = await run("img2text", seeing)
        fleet = await stack.enter_async_context(
            open_fleet(
                llm_target=f"127.0.0.1:{llm_port}",
                stt_target=f"127.0.0.1:{stt_port}",
                tts_target=f"127.0.0.1:{tts_port}",
                text2image_target=f"127.0.0.1:{drawing_port}",
                img2img_target=f"127.0.0.1:{editing_port}",
                img2text_target=f"127.0.0.1:{seeing_port}",
                service_credential=CREDENTIAL,
            )
        )
        pipeline = Pipeline(core.admission)
        stack.push_async_callback(pipeline.drain)
        registry = CollectorRegistry()
        keeper = Keeper(core.answers, registry=registry, new_id=lambda: str(uuid7()))
        gateway = Gateway(
            authenticator=core.authenticator,
            pipeline=pipeline,
            catalogue=catalogue,
            llm=fleet.llm,
            stt=fleet.stt,
            tts=fleet.tts,
            text2image=fleet.text2image,
            img2img=fleet.img2img,
            img2text=fleet.img2text,
            services=fleet.watches,
            reports=core.reports,
            administration=core.administration,
            standing=core.standing,
            now=lambda: datetime.now(UTC),
            live=LiveSessions(live),
            max_picture_bytes=2 << 20,
            fetcher=fetcher,
            idempotency=keeper,
        )
        log = io.BytesIO()
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
            up = {"llm": llm, "stt": True, "tts": tts, "img2text": seeing}
            up |= {"text2image": pictures, "img2img": pictures}
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
            seeing_engine=seeing_engine,
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


def free_port() -> int:
    """Finds a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
