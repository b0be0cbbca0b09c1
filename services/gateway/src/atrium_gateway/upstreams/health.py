"""Watches the health of a service, so that the gateway knows without asking.

Two things are followed per service. The channel that carries the calls tells whether a
call gets through: it checks the health of every replica itself, and what it says is
what the next request meets. A `grpc.health.v1` Watch stream on a channel of its own
tells a service that is starting from one that is dead.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.domain import ModelInfo
from atrium_common.errors import AtriumError
from atrium_common.wire import model_from_proto
from atrium_gateway.upstreams.calls import Credentials, StreamedCall, unmetered

RETRY_SECONDS = 0.5
MODELS_SECONDS = 5.0
MOVE_SECONDS = 900.0
"""Longest time for a model to be read from a disk, however slow."""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """What is known of a service.

    Attributes:
        reachable: It answers; the process lives.
        serving: It takes work: calls reach a replica that serves.
    """

    reachable: bool
    serving: bool

    @property
    def status(self) -> str:
        """``"ready"``, ``"starting"`` (alive, not serving: also while draining) or ``"down"``."""
        if self.serving:
            return "ready"
        return "starting" if self.reachable else "down"


StreamedState = StreamedCall[health_pb2.HealthCheckResponse, None]
DOWN = ServiceHealth(reachable=False, serving=False)


class ServiceWatch:
    """Follows one service from `start` to `close`."""

    def __init__(
        self,
        name: str,
        service: str,
        *,
        calls: grpc.aio.Channel,
        plain: grpc.aio.Channel,
        credentials: Credentials,
    ) -> None:
        """Starts nothing yet.

        Args:
            name: Short name, e.g. ``"llm"``.
            service: Full proto name whose health is watched.
            calls: The health-checked channel that carries the service's calls.
            plain: A channel to the same service that checks no health: it lets calls
                through to a service that is starting.
            credentials: Makes the metadata of the calls that ask for models.
        """
        self.name = name
        self.health = DOWN
        self._service = service
        self._credentials = credentials
        self._calls = calls
        self._health_stub = health_pb2_grpc.HealthStub(plain)
        self._model_stub = model_pb2_grpc.ModelServiceStub(plain)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to watch; the state is DOWN until the service has said otherwise."""
        self._tasks = [
            asyncio.create_task(self._watch_calls(), name=f"watch-calls-{self.name}"),
            asyncio.create_task(self._watch_process(), name=f"watch-process-{self.name}"),
        ]

    async def close(self) -> None:
        """Ends the watch."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until_serving(self) -> None:
        """Returns once the service takes work."""
        while not self.health.serving:
            self._changed.clear()
            await self._changed.wait()

    async def models(self, *, tenant: str, request_id: str) -> Sequence[ModelInfo]:
        """Asks the service for its models and their state.

        Raises:
            Unavailable: It does not answer.
        """
        reply = await unmetered(
            self._model_stub.ListModels(
                model_pb2.ListModelsRequest(),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=MODELS_SECONDS,
            )
        )
        return [model_from_proto(model) for model in reply.models]

    async def load(self, model: str, tenant: str, request_id: str) -> ModelInfo:
        """Has a replica of the service load a model; returns when it is ready.

        Args:
            model: Catalogue id.
            tenant: Who asks.
            request_id: Of the request.

        Raises:
            Unavailable: The service does not answer, or the model can't be loaded.
            Overloaded: There is no room for it now.
        """
        reply = await unmetered(
            self._model_stub.LoadModel(
                model_pb2.LoadModelRequest(model=model),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=MOVE_SECONDS,
            )
        )
        return model_from_proto(reply.model)

    async def unload(self, model: str, tenant: str, request_id: str) -> ModelInfo:
        """Has a replica of the service take a model out of memory; arguments as of `load`.

        Raises:
            Unavailable: The service does not answer.
            Conflict: Requests run on it.
        """
        reply = await unmetered(
            self._model_stub.UnloadModel(
                model_pb2.UnloadModelRequest(model=model),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=MOVE_SECONDS,
            )
        )
        return model_from_proto(reply.model)

    async def _watch_calls(self) -> None:
        while True:
            state = self._calls.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                self._set(serving=True)
            elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._set(serving=False)
            # While it connects anew calls wait for it, so the last word holds.
            await self._calls.wait_for_state_change(state)

    async def _watch_process(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._service)
        while True:
            states: StreamedState = StreamedCall(
                # Each call that fails because nobody is there would leave some bytes in grpc
                # for ever (grpc issue 43360): one call waits until somebody is.
                self._health_stub.Watch(request, wait_for_ready=True),
                _ignored,
            )
            # A service that died ends the stream; that is the news, not a failure of ours.
            with contextlib.suppress(AtriumError):
                async for _ in states:
                    self._set(reachable=True)
            self._set(reachable=False)
            await asyncio.sleep(RETRY_SECONDS)

    def _set(self, **news: bool) -> None:
        self.health = replace(self.health, **news)
        self._changed.set()


def _ignored(_: health_pb2.HealthCheckResponse) -> None:
    """What the process says of its work is heard by the channel that carries the calls."""
