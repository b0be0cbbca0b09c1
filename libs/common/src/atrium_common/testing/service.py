"""Runs a service in a test's own loop on a real socket, with everything around it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc.aio
from pydantic import SecretStr

from atrium_common.channels import open_channel
from atrium_common.engine import Engine
from atrium_common.interceptors.metadata import (
    AUTHORIZATION,
    REQUEST_ID,
    RESERVATION,
    SERVICE,
    TENANT,
    WEIGHT,
)
from atrium_common.interceptors.tracing import Tracing
from atrium_common.lifecycle import Lifecycle
from atrium_common.metrics import ServiceMetrics
from atrium_common.server import start_server
from atrium_common.service import Servicer
from atrium_common.settings import ServiceSettings
from atrium_common.testing.admission import FakeAdmission
from atrium_common.tls import ClientTls

CREDENTIAL = "test-service-credential"
"""The suite's shared secret in tests."""

Metadata = tuple[tuple[str, str], ...]


class RunningService(NamedTuple):
    """Where the service under test listens."""

    channel: grpc.aio.Channel
    port: int


@asynccontextmanager
async def running_server(
    servicer: Servicer,
    engine: Engine,
    *,
    admission: FakeAdmission | None = None,
    lifecycle: Lifecycle | None = None,
    tls: ClientTls | None = None,
    metrics: ServiceMetrics | None = None,
    tracing: Tracing | None = None,
    **settings: Any,
) -> AsyncIterator[RunningService]:
    """Serves `servicer` until the block ends; ready when it begins.

    Args:
        servicer: The servicer under test.
        engine: Its engine; loaded before the block and closed after it.
        admission: Admits tenants' calls; without it they get UNAVAILABLE.
        lifecycle: Of the engine's models, where idle ones are to be unloaded.
        tls: How the channel connects, where `settings` give the server certificates.
        metrics: Collectors to read afterwards; the server makes its own if not given.
        tracing: Opens spans.
        settings: Fields of `ServiceSettings` to set.
    """
    values: dict[str, Any] = {
        "port": 0,
        "metrics_port": 0,
        "drain_seconds": 1.0,
        "service_credential": SecretStr(CREDENTIAL),
        "admission_target": None if admission is None else admission.target,
    }
    server = await start_server(
        servicer,
        engine,
        ServiceSettings(**(values | settings)),
        lifecycle=lifecycle,
        metrics=metrics,
        tracing=tracing,
    )
    channel = open_channel(f"127.0.0.1:{server.port}", tls=tls)
    try:
        await server.wait_ready()
        yield RunningService(channel, server.port)
    finally:
        await channel.close(None)
        await server.stop()


def gateway_metadata(
    *,
    tenant: str = "acme",
    reservation: str = "reservation-1",
    request_id: str = "request-1",
    weight: float | None = None,
) -> Metadata:
    """Returns what the gateway sends: admitted already, so admission is skipped."""
    given = () if weight is None else ((WEIGHT, str(weight)),)
    return (
        (SERVICE, CREDENTIAL),
        (TENANT, tenant),
        (RESERVATION, reservation),
        (REQUEST_ID, request_id),
        *given,
    )


def service_metadata(*, tenant: str | None = None) -> Metadata:
    """Returns what another service of the suite sends: trusted, not admitted yet."""
    named = () if tenant is None else ((TENANT, tenant),)
    return ((SERVICE, CREDENTIAL), *named)


def tenant_metadata(token: str = "good-token") -> Metadata:  # noqa: S107
    """Returns what a tenant sends that speaks gRPC directly."""
    return ((AUTHORIZATION, f"Bearer {token}"),)
