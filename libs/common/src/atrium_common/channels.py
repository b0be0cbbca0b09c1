"""The one way to open a channel to a service: balanced, health-checked, retried.

Called by the gateway's upstreams, the services' admission client and tests.
"""

import json
from collections.abc import Sequence
from typing import Final

import grpc.aio

from atrium_common.tls import ClientTls

# Servers allow a ping every SERVER_MIN_PING_MS and answer faster ones with GOAWAY.
SERVER_MIN_PING_MS: Final = 10_000
CLIENT_PING_MS: Final = 30_000
PING_TIMEOUT_MS: Final = 10_000
NEVER_MS: Final = 2**31 - 1
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


def open_channel(
    target: str,
    *,
    tls: ClientTls | None = None,
    health_service: str | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """Opens a channel; it connects at its first call.

    Args:
        target: gRPC target, e.g. ``"127.0.0.1:7865"`` or ``"dns:///llm:7865"``.
        tls: Certificates; ``None`` speaks plaintext.
        health_service: Name whose `grpc.health.v1` state decides whether a server
            gets calls; ``None`` asks none.
        interceptors: Client interceptors; each costs a task per call.
        max_message_bytes: Largest message, in and out.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", service_config(health_service)),
        ("grpc.enable_retries", 1),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", CLIENT_PING_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        # An idle connection that a NAT has dropped must be seen before the next call.
        ("grpc.keepalive_permit_without_calls", 1),
        # A restarted service is to be found again within seconds, not two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        # A channel that goes idle would meet the next call unconnected.
        ("grpc.client_idle_timeout_ms", NEVER_MS),
        # Channels with other settings must not share this one's connection.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(
        target, tls.credentials(), options=options, interceptors=interceptors
    )


def service_config(health_service: str | None) -> str:
    """Returns the service config as JSON: round robin, health check, retry policy.

    A call is sent again only for UNAVAILABLE and only if no answer had begun.
    """
    config: dict[str, object] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
    if health_service is not None:
        config["healthCheckConfig"] = {"serviceName": health_service}
    return json.dumps(config)
