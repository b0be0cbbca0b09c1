"""Serves the AdmissionService on its own internal port; `__main__` and tests enter it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import structlog

from atrium_common.errors import InvalidArgument
from atrium_common.health import HealthBoard, HealthServicer
from atrium_common.interceptors.auth import Authenticator as ServiceAuthenticator
from atrium_common.interceptors.edge import Edge
from atrium_common.interceptors.tracing import Tracing
from atrium_common.listening import listen, server_options
from atrium_common.metrics import ServiceMetrics, make_metrics
from atrium_common.settings import ServiceSettings
from atrium_gateway.admission_servicer import SERVICE_NAME, AdmissionServicer
from atrium_gateway.auth.networks import read_networks
from atrium_gateway.core import Core
from atrium_gateway.settings import GatewaySettings

_log = structlog.get_logger(__name__)

_METHODS = frozenset(f"/{SERVICE_NAME}/{name}" for name in ("Admit", "Renew", "Settle", "Refund"))
_MAX_CONCURRENT = 2048
_LAST_GRACE_SECONDS = 1.0


@asynccontextmanager
async def serving_admission(
    core: Core,
    settings: GatewaySettings,
    *,
    metrics: ServiceMetrics | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[int]:
    """Serves admission while entered; drains on leaving.

    Args:
        core: The gateway's core.
        settings: Address, certificates and the service credential, which every caller
            must hold.
        metrics: Collectors, shared with the REST server's registry; made if not given.
        tracing: Spans; none if not given.

    Yields:
        The port.

    Raises:
        InvalidArgument: There is no service credential.
        OSError: The port is taken or a certificate can't be read.
    """
    if settings.service_credential is None:
        raise InvalidArgument(
            "ATRIUM_SERVICE_CREDENTIAL is needed to serve admission.", field="service_credential"
        )
    edge = Edge(
        authenticator=ServiceAuthenticator(settings.service_credential.get_secret_value()),
        usage=None,
        metrics=metrics or make_metrics(),
        tracing=tracing or Tracing(),
        trusted_only=_METHODS,
        max_concurrent=_MAX_CONCURRENT,
    )
    listening = ServiceSettings(
        host=settings.admission_host,
        port=settings.admission_port,
        metrics_port=0,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
    )
    server = grpc.aio.server(interceptors=[edge], options=server_options(listening))
    AdmissionServicer(
        authenticator=core.authenticator,
        admission=core.admission,
        noted=core.ledger.synced,
        trusted_proxies=read_networks(settings.trusted_proxies),
    ).register(server)
    health = HealthBoard()
    HealthServicer(health).register(server)
    port = listen(server, listening)
    await server.start()
    for name in ("", SERVICE_NAME):
        health.set(name, serving=True)
    _log.info("admission_listening", port=port)
    try:
        yield port
    finally:
        health.close()
        stopping = asyncio.create_task(server.stop(settings.drain_seconds + _LAST_GRACE_SECONDS))
        if not await edge.wait_idle(settings.drain_seconds):
            edge.interrupt_all()
        await stopping
