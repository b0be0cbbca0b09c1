"""`GET /health`, `/health/live` and `/health/ready`: for people, supervisors and balancers.

They need no credential and ask no service: what the watches know is told at once.
"""

import msgspec
from msgspec import Struct

from atrium_gateway.api.exchange import Exchange

_ENCODER = msgspec.json.Encoder()


class ServiceState(Struct, frozen=True):
    """A service: ``"ready"``, ``"starting"`` or ``"down"``, and what it serves."""

    status: str
    capabilities: list[str]


class HealthAnswer(Struct, frozen=True):
    """Answer of `GET /health`: ``"ok"``, ``"degraded"`` (some down) or ``"down"`` (all)."""

    status: str
    services: dict[str, ServiceState]


class StatusAnswer(Struct, frozen=True):
    """Answer of a probe."""

    status: str


async def show_health(exchange: Exchange) -> None:
    """Shows every service's state; status 503 when any is not ready."""
    answer = _health(exchange)
    await exchange.reply(_ENCODER.encode(answer), status=200 if answer.status == "ok" else 503)


async def show_liveness(exchange: Exchange) -> None:
    """Says that this process runs."""
    await exchange.reply(_ENCODER.encode(StatusAnswer("live")))


async def show_readiness(exchange: Exchange) -> None:
    """Says whether any capability is served; status 503 when none is."""
    ready = _health(exchange).status != "down"
    answer = StatusAnswer("ready" if ready else "not ready")
    headers = {} if ready else {"retry-after": "2"}
    await exchange.reply(_ENCODER.encode(answer), status=200 if ready else 503, headers=headers)


def _health(exchange: Exchange) -> HealthAnswer:
    gateway = exchange.gateway
    services = {}
    for name, watch in gateway.services.items():
        entries = gateway.catalogue.for_service(name)
        if not entries:
            continue  # a suite without its models needs no such service
        capabilities = dict.fromkeys(str(c) for entry in entries for c in entry.capabilities)
        services[name] = ServiceState(watch.health.status, list(capabilities))
    ready = sum(state.status == "ready" for state in services.values())
    if ready == len(services):
        return HealthAnswer("ok", services)
    return HealthAnswer("degraded" if ready else "down", services)
