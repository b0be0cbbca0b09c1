"""What every service of the suite is promised to do, checked against a running one.

A service's tests call `check_service` with the channel of `running_server`.
"""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from atrium.common.v1 import model_pb2, model_pb2_grpc
from atrium_common.testing.service import Metadata, gateway_metadata, service_metadata

_TIMEOUT = 10.0
_NO_MESSAGE = b"\xff\xff\xff"


async def check_service(channel: grpc.aio.Channel, service_name: str) -> None:
    """Checks health, reflection, the model list, and that no method is left open.

    Every method must refuse a caller without a credential as UNAUTHENTICATED and bytes
    that are no message as INVALID_ARGUMENT, whatever its arity; UNIMPLEMENTED will do
    for a method that the service does not offer.

    Raises:
        AssertionError: A promise is not kept; the message names it.
    """
    for name in ("", service_name, "atrium.common.v1.ModelService"):
        _demand(await _is_serving(channel, name), f"health of {name!r} is SERVING")
    _demand(service_name in await _reflected(channel), f"reflection lists {service_name}")
    await _check_models(channel)
    service = descriptor_pool.Default().FindServiceByName(service_name)
    for method in service.methods:
        code = await _code(channel, service_name, method, b"", ())
        _demand(code is grpc.StatusCode.UNAUTHENTICATED, f"{method.name} without a credential")
        code = await _code(channel, service_name, method, _NO_MESSAGE, gateway_metadata())
        refused = code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
        _demand(refused, f"{method.name} with broken bytes")


def _demand(kept: bool, promise: str) -> None:
    if not kept:
        raise AssertionError(f"not kept: {promise}")


async def _is_serving(channel: grpc.aio.Channel, name: str) -> bool:
    request = health_pb2.HealthCheckRequest(service=name)
    reply = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def _reflected(channel: grpc.aio.Channel) -> set[str]:
    stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        timeout=_TIMEOUT
    )
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await stream.done_writing()
    reply = await stream.read()
    await stream.read()
    return {service.name for service in reply.list_services_response.service}


async def _check_models(channel: grpc.aio.Channel) -> None:
    reply = await model_pb2_grpc.ModelServiceStub(channel).ListModels(
        model_pb2.ListModelsRequest(), metadata=service_metadata(), timeout=_TIMEOUT
    )
    _demand(bool(reply.models), "at least one model is listed")
    for model in reply.models:
        whole = bool(model.id and model.engine and model.capabilities and model.state)
        _demand(whole, f"model {model.id!r} states its id, engine, capabilities and state")
        if model.state == model_pb2.MODEL_STATE_READY:
            _demand(await _is_serving(channel, f"model:{model.id}"), f"health of {model.id}")


async def _code(
    channel: grpc.aio.Channel,
    service_name: str,
    method: MethodDescriptor,
    data: bytes,
    metadata: Metadata,
) -> grpc.StatusCode:
    """Calls a method with raw bytes, in its arity; returns the status."""
    path = f"/{service_name}/{method.name}"
    streams = (method.client_streaming, method.server_streaming)
    sent = metadata or None
    try:
        if streams == (False, False):
            await channel.unary_unary(path, None, None)(data, timeout=_TIMEOUT, metadata=sent)
        elif streams == (False, True):
            down = channel.unary_stream(path, None, None)(data, timeout=_TIMEOUT, metadata=sent)
            async for _ in down:
                pass
        elif streams == (True, False):
            up = channel.stream_unary(path, None, None)
            await up(_once(data), timeout=_TIMEOUT, metadata=sent)
        else:
            both = channel.stream_stream(path, None, None)
            async for _ in both(_once(data), timeout=_TIMEOUT, metadata=sent):
                pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
