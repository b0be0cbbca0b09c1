"""Runs one service: `serve(servicer, engine, settings)` from every `__main__`.

Live at once, ready when the engine has loaded, drained when told to stop. Tests and
other composition roots use `start_server` and stop it themselves.
"""

import asyncio
import math
import signal
import sys
from typing import Final

import grpc.aio
import structlog
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection

from atrium_common import health
from atrium_common.admission_client import open_admission
from atrium_common.domain import ModelState
from atrium_common.engine import Engine, HasBatches
from atrium_common.health import HealthBoard, HealthServicer
from atrium_common.interceptors.auth import Authenticator
from atrium_common.interceptors.edge import Edge
from atrium_common.interceptors.settlements import Settlements
from atrium_common.interceptors.tracing import Tracing
from atrium_common.interceptors.usage import UsageGate, smallest_work
from atrium_common.lifecycle import Lifecycle
from atrium_common.listening import listen, server_options
from atrium_common.logs import configure_logging
from atrium_common.metrics import ServiceMetrics, make_metrics
from atrium_common.model_servicer import OPERATORS_ONLY, ModelServicer
from atrium_common.model_servicer import SERVICE_NAME as MODEL_SERVICE
from atrium_common.models import ModelBoard
from atrium_common.probes import Probes, Pulse
from atrium_common.service import HasQueues, Servicer, WorkEstimate
from atrium_common.settings import ServiceSettings
from atrium_common.telemetry.setup import tracing as recording
from atrium_common.usage_servicer import SERVICE_NAME as USAGE_SERVICE
from atrium_common.usage_servicer import SUITE_ONLY, UsageServicer

__all__ = ["Engine", "RunningServer", "Servicer", "WorkEstimate", "serve", "start_server"]

_WATCH_SECONDS: Final = 0.5
_VERIFY_SECONDS: Final = 120.0
_VERIFY_AGAIN_SECONDS: Final = 30.0
_LAST_GRACE_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 5.0
_SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep Python's lock while others wait. The model's thread would keep
it for the default 5 ms, and an upload, whose way has several threads, would wait at each."""


async def serve(
    servicer: Servicer,
    engine: Engine,
    settings: ServiceSettings,
    *,
    lifecycle: Lifecycle | None = None,
    metrics: ServiceMetrics | None = None,
) -> None:
    """Sets up the log, serves until SIGTERM or SIGINT, then drains.

    Args:
        servicer: The service's own RPCs.
        engine: Its engine; loaded here, in the background, and closed here.
        settings: Where to listen and whom to trust.
        lifecycle: Of the engine's models; unloads idle ones while the service runs.
        metrics: Collectors, where `__main__` has added its own; made here otherwise.

    Raises:
        OSError: A port is taken or a certificate can't be read.
        Exception: What the engine's `load` raised, after everything is stopped.
    """
    configure_logging(_short(servicer), settings.log_level, settings.log_format)
    sys.setswitchinterval(_SWITCH_SECONDS)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with recording(_short(servicer)) as provider:
        server = await start_server(
            servicer,
            engine,
            settings,
            lifecycle=lifecycle,
            metrics=metrics,
            tracing=Tracing(provider),
        )
        stopping = loop.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, server.loading}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                server.loading.result()
                await stopping
        finally:
            stopping.cancel()
            # A second signal ends the process at once, whatever is still running.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await server.stop()


async def start_server(
    servicer: Servicer,
    engine: Engine,
    settings: ServiceSettings,
    *,
    lifecycle: Lifecycle | None = None,
    metrics: ServiceMetrics | None = None,
    tracing: Tracing | None = None,
) -> "RunningServer":
    """Starts serving and loading; returns at once.

    Raises:
        OSError: A port is taken or a certificate can't be read.
    """
    server = RunningServer(
        servicer,
        engine,
        settings,
        lifecycle=lifecycle or Lifecycle(),
        metrics=metrics or make_metrics(),
        tracing=tracing or Tracing(),
    )
    await server.start()
    return server


class RunningServer:
    """A service that runs; `stop` it exactly once.

    Attributes:
        port: gRPC port.
        metrics_port: HTTP port of the probes.
        loading: The engine's loading; done when the service is ready or failed.
        health: Which names serve.
        metrics: The collectors.
        edge: What surrounds the RPCs.
    """

    def __init__(
        self,
        servicer: Servicer,
        engine: Engine,
        settings: ServiceSettings,
        *,
        lifecycle: Lifecycle,
        metrics: ServiceMetrics,
        tracing: Tracing,
    ) -> None:
        self._servicer = servicer
        self._engine = engine
        self._lifecycle = lifecycle
        self._settings = settings
        self._log = structlog.get_logger("atrium.server").bind(rpc_service=servicer.service_name)
        self._names = ("", servicer.service_name, MODEL_SERVICE)
        self.metrics = metrics
        self.health = HealthBoard()
        self._models = ModelBoard(engine)
        self._loaded = False
        self._refreshed = asyncio.Event()
        self._pulse = Pulse()
        self._probes = Probes(
            registry=metrics.registry,
            pulse=self._pulse,
            ready=lambda: self.health.is_serving(""),
            models=self._models.snapshot,
        )
        self._settlements = Settlements(metrics)
        self._channel, admission = open_admission(settings)
        credential = settings.service_credential
        self.edge = Edge(
            authenticator=Authenticator(credential.get_secret_value() if credential else None),
            usage=UsageGate(
                admission=admission,
                estimate=self._estimate,
                probe=self._probe_work,
                settlements=self._settlements,
            ),
            metrics=metrics,
            tracing=tracing,
            trusted_only=OPERATORS_ONLY | SUITE_ONLY,
            max_concurrent=settings.max_concurrent_rpcs,
            default_deadline=settings.default_deadline_seconds,
        )
        self._server = grpc.aio.server(interceptors=[self.edge], options=server_options(settings))
        self.port = 0
        self.metrics_port = 0
        self.loading: asyncio.Task[None]
        self._tending: tuple[asyncio.Task[None], ...] = ()

    async def start(self) -> None:
        """Listens and begins to load."""
        self._servicer.register(self._server)
        ModelServicer(self._engine, self._models).register(self._server)
        UsageServicer(self.edge.accounts).register(self._server)
        HealthServicer(self.health).register(self._server)
        names = (*self._names[1:], USAGE_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        for name in self._names:
            self.health.set(name, serving=False)
        settings = self._settings
        try:
            self.port = listen(self._server, settings)
            self.metrics_port = self._probes.start(settings.host, settings.metrics_port)
        except OSError:
            await self._server.stop(None)
            await self._close_channel()
            raise
        await self._server.start()
        self._show_metrics()
        self.loading = asyncio.create_task(self._load())
        self._tending = (
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._verify()),
            asyncio.create_task(self._lifecycle.run()),
        )
        self._log.info("listening", port=self.port, metrics_port=self.metrics_port)

    def _show_metrics(self) -> None:
        self.metrics.tell_build(_short(self._servicer))
        self.metrics.watch_models(self._models.snapshot)
        self.metrics.watch_gpus()
        if isinstance(self._servicer, HasQueues):
            for name, queue in self._servicer.queues.items():
                self.metrics.watch_queue(name, queue)
        engine = self._engine
        if isinstance(engine, HasBatches):
            self.metrics.watch_batches(lambda: engine.batches)

    async def wait_ready(self) -> None:
        """Waits until the engine has loaded; raises what loading raised."""
        await asyncio.shield(self.loading)

    async def wait_verified(self) -> None:
        """Waits until every loaded model has been verified, for tests and `make run`."""
        await self.wait_ready()
        while any(m.state is ModelState.READY and not m.verified_at for m in self._models.models()):
            await self._refreshed.wait()

    async def stop(self) -> None:
        """Drains: no new calls, running ones finish or are told to try again elsewhere."""
        settings = self._settings
        self._log.info("draining", running=self.edge.running)
        self.health.close()
        tasks = (self.loading, *self._tending)
        for task in tasks:
            task.cancel()
        stopping = asyncio.create_task(
            self._server.stop(settings.drain_seconds + _LAST_GRACE_SECONDS)
        )
        if not await self.edge.wait_idle(settings.drain_seconds):
            self._log.warning("ending calls that did not finish", running=self.edge.running)
            self.edge.interrupt_all()
        await stopping
        await self._settlements.drain(_SETTLE_SECONDS)
        # What loading raised is told by `wait_ready` and `serve`.
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()
        await asyncio.to_thread(self._probes.stop)
        await self._close_channel()
        self._log.info("stopped")

    async def _close_channel(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)

    async def _load(self) -> None:
        try:
            await self._engine.load()
        except Exception as error:
            self._log.error("the engine did not load", engine=self._engine.name, exc_info=error)
            raise
        self._loaded = True
        self._refresh()
        self._log.info("ready", models=[model.id for model in self._models.snapshot()])

    async def _watch(self) -> None:
        """Keeps health true to what the engine says."""
        while True:
            self._pulse.beat()
            self._refresh()
            await asyncio.sleep(_WATCH_SECONDS)

    async def _verify(self) -> None:
        """Verifies each loaded model once, and again later one that failed."""
        await asyncio.shield(self.loading)
        tried: dict[str, float] = {}
        clock = asyncio.get_running_loop().time
        while True:
            for model in self._models.due():
                if clock() - tried.get(model, -math.inf) >= _VERIFY_AGAIN_SECONDS:
                    tried[model] = clock()
                    await self._models.verify(model, timeout=_VERIFY_SECONDS)
                    self._refresh()
            await asyncio.sleep(_WATCH_SECONDS)

    def _refresh(self) -> None:
        self._refreshed.set()
        self._refreshed = asyncio.Event()
        models = self._models.models()
        loaded = self._loaded
        for model in models:
            serving = loaded and model.state is ModelState.READY
            self.health.set(f"model:{model.id}", serving=serving)
        # A model that loads on first use counts, also while it does: its callers wait for it.
        able = not models or any(model.state is not ModelState.FAILED for model in models)
        for name in self._names:
            self.health.set(name, serving=loaded and able)

    def _estimate(self, method: str, request: Message) -> WorkEstimate | None:
        if method.startswith((f"/{MODEL_SERVICE}/", f"/{USAGE_SERVICE}/")):
            return None
        return self._servicer.estimate(method, request)

    def _probe_work(self) -> WorkEstimate | None:
        models = self._models.models()
        return smallest_work(models[0].capabilities, models[0].id) if models else None


def _short(servicer: Servicer) -> str:
    """``"llm"`` of ``"atrium.llm.v1.TextGenerationService"``."""
    return servicer.service_name.split(".")[1]
