"""Watches the health of a service, so that the gateway knows without asking.

One task per service holds a `grpc.health.v1` Watch stream: a state arrives when it
changes, and a dead connection ends the stream.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.domain import ModelInfo
from atrium_common.errors import AtriumError
from atrium_common.wire import model_from_proto
from atrium_gateway.upstreams.calls import Credentials, StreamedCall, translated

RETRY_SECONDS = 0.5
MODELS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """What is known of a service.

    Attributes:
        reachable: It answers; the process lives.
        serving: It takes work.
    """

    reachable: bool
    serving: bool

    @property
    def status(self) -> str:
        """``"ready"``, ``"starting"`` (alive, not serving: also while draining) or ``"down"``."""
        if self.serving:
            return "ready"
        return "starting" if self.reachable else "down"


StreamedState = StreamedCall[health_pb2.HealthCheckResponse, ServiceHealth]
DOWN = ServiceHealth(reachable=False, serving=False)


class ServiceWatch:
    """Follows one service from `start` to `close`."""

    def __init__(
        self, name: str, channel: grpc.aio.Channel, service: str, credentials: Credentials
    ) -> None:
        """Args: name: Short name, e.g. ``"llm"``. service: Full proto name that is watched."""
        self.name = name
        self.health = DOWN
        self._service = service
        self._credentials = credentials
        self._health_stub = health_pb2_grpc.HealthStub(channel)
        self._model_stub = model_pb2_grpc.ModelServiceStub(channel)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch; the state is DOWN until the service has said otherwise."""
        self._task = asyncio.create_task(self._watch(), name=f"watch-{self.name}")

    async def close(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

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
        try:
            reply = await self._model_stub.ListModels(
                model_pb2.ListModelsRequest(),
                metadata=self._credentials.plain(tenant, request_id),
                timeout=MODELS_SECONDS,
            )
        except grpc.aio.AioRpcError as err:
            raise translated(err) from err
        return [model_from_proto(model) for model in reply.models]

    async def _watch(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._service)
        while True:
            states: StreamedState = StreamedCall(self._health_stub.Watch(request), _health)
            # A service that died ends the stream; that is the news, not a failure of ours.
            with contextlib.suppress(AtriumError):
                async for health in states:
                    self._set(health)
            self._set(DOWN)
            await asyncio.sleep(RETRY_SECONDS)

    def _set(self, health: ServiceHealth) -> None:
        self.health = health
        self._changed.set()


def _health(reply: health_pb2.HealthCheckResponse) -> ServiceHealth:
    return ServiceHealth(
        reachable=True, serving=reply.status == health_pb2.HealthCheckResponse.SERVING
    )
