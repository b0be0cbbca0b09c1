"""The promises of the lifecycle as a service shows it: states, health, idle unload, by gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.lifecycle import Lifecycle, LifecyclePolicy
from atrium_common.testing import running_server, service_metadata
from atrium_common.testing.echo import EchoServicer
from atrium_common.testing.toys import ToyClock, ToyEngine, toy_entry

MIB = 1 << 20
STATES = model_pb2.ModelState


class Served:
    """A service with three toy models in a budget of two, none of them loaded at start."""

    def __init__(self) -> None:
        self.clock = ToyClock()
        self.lifecycle = Lifecycle(
            LifecyclePolicy(keep_alive=60.0, memory_bytes=8 * MIB, patience=0.0),
            at_start=(),
            clock=self.clock,
            release=lambda: None,
        )
        entries = [toy_entry(model, memory_mib=4) for model in "abc"]
        self.engine = ToyEngine(entries, lifecycle=self.lifecycle, now=self.clock.now)
        self.models: model_pb2_grpc.ModelServiceAsyncStub
        self.health: health_pb2_grpc.HealthStub

    async def listed(self) -> dict[str, model_pb2.Model]:
        reply = await self.models.ListModels(
            model_pb2.ListModelsRequest(), metadata=service_metadata()
        )
        return {model.id: model for model in reply.models}

    async def load(self, model: str) -> model_pb2.Model:
        request = model_pb2.LoadModelRequest(model=model)
        return (await self.models.LoadModel(request, metadata=service_metadata())).model

    async def unload(self, model: str) -> model_pb2.Model:
        request = model_pb2.UnloadModelRequest(model=model)
        return (await self.models.UnloadModel(request, metadata=service_metadata())).model


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    async with running_server(EchoServicer(), served.engine, lifecycle=served.lifecycle) as (
        channel,
        _,
    ):
        served.models = model_pb2_grpc.ModelServiceStub(channel)
        served.health = health_pb2_grpc.HealthStub(channel)
        yield served


async def test_a_service_is_ready_before_its_models_are_loaded() -> None:
    async with serving() as served:
        reply = await served.health.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        states = [model.state for model in (await served.listed()).values()]
        assert states == [STATES.MODEL_STATE_UNLOADED] * 3


async def test_operators_load_and_unload_and_see_what_it_takes() -> None:
    async with serving() as served:
        loaded = await served.load("b")
        assert (loaded.state, loaded.memory_bytes) == (STATES.MODEL_STATE_READY, 4 * MIB)
        assert loaded.HasField("verify_time")
        assert not loaded.HasField("last_use_time")
        async with served.engine.host.use("b"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.unload("b")
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert (await served.listed())["b"].HasField("last_use_time")
        gone = await served.unload("b")
        assert (gone.state, gone.memory_bytes) == (STATES.MODEL_STATE_UNLOADED, 0)


async def test_a_third_model_takes_the_place_of_the_first_or_is_told_to_wait() -> None:
    async with serving() as served:
        for model in "ab":
            served.clock.seconds += 1
            await served.load(model)
        await served.load("c")
        assert (served.engine.closed, served.engine.inside) == (["a"], {"b", "c"})
        async with served.engine.host.use("b"), served.engine.host.use("c"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.load("a")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_service_unloads_what_is_idle() -> None:
    async with serving() as served:
        async with served.engine.host.use("a"):
            pass
        served.clock.seconds += 60
        async with asyncio.timeout(10):
            while served.engine.inside:  # noqa: ASYNC110 - the service looks once a second
                await asyncio.sleep(0.02)
        assert (await served.listed())["a"].state == STATES.MODEL_STATE_UNLOADED
