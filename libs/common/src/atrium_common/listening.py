"""How a server takes its port: addresses, certificates, keepalive; used by `server.py`."""

import grpc.aio

from atrium_common.channels import PING_TIMEOUT_MS, SERVER_MIN_PING_MS
from atrium_common.settings import ServiceSettings
from atrium_common.tls import ServerTls

_PENDING_CALLS = 1 << 14
"""Calls that have arrived and that a busy loop has not looked at yet."""


def listen(server: grpc.aio.Server, settings: ServiceSettings) -> int:
    """Adds the configured port, with TLS where certificates are given; returns it.

    Raises:
        OSError: The port is taken or a certificate can't be read.
    """
    address = f"{settings.host}:{settings.port}"
    try:
        if settings.tls_certificate is None or settings.tls_key is None:
            return server.add_insecure_port(address)
        tls = ServerTls(
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            client_ca=settings.tls_client_ca,
        )
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise OSError(f"can't listen on {address}: is the port in use?") from error


def server_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    """Returns the channel arguments: message sizes, keepalive, an exclusive port."""
    # grpc's own cap on RPCs would refuse health checks too: the edge has ours.
    return [
        # grpc's own bounds (1,000 calls; from there on by chance) cancel calls without a word,
        # before the edge can answer RESOURCE_EXHAUSTED and when to come back.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING_CALLS),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Off, so that a second process on the port is an error and not a coin toss.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", SERVER_MIN_PING_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", SERVER_MIN_PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ]
