"""`POST /api/models/{model}/load` and `/unload`: operators move models in and out of memory.

`admin_routes.py` names the paths; what a service does then is its lifecycle's (docs/adr/0015).
"""

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from atrium_common.domain import ModelInfo
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.models import named
from atrium_gateway.api.reach import reach_all
from atrium_gateway.audit.domain import Action as Audited
from atrium_gateway.auth.roles import Action
from atrium_gateway.upstreams.health import ServiceWatch

_ENCODER = msgspec.json.Encoder()
_Move = Callable[[ServiceWatch, str, str, str], Awaitable[ModelInfo]]


class ModelMoved(Struct, frozen=True, kw_only=True):
    """Answer of both: where the model stands now.

    Attributes:
        state: As in `GET /api/models`.
        memory_bytes: What it takes of its device's memory; 0 if none, or not known.
        verified_at: When a small pass last succeeded since it was loaded.
        detail: Why the state is ``"failed"``.
    """

    id: str
    service: str
    state: str
    memory_bytes: int
    verified_at: str | None
    detail: str


async def load_model(exchange: Exchange) -> None:
    """Loads a model and waits until it is ready; does nothing for a ready one."""
    await _moved(exchange, ServiceWatch.load, Audited.MODEL_LOAD)


async def unload_model(exchange: Exchange) -> None:
    """Takes a model out of memory; one that requests run on stays, with 409."""
    await _moved(exchange, ServiceWatch.unload, Audited.MODEL_UNLOAD)


async def _moved(exchange: Exchange, move: _Move, action: Audited) -> None:
    allowed = await reach_all(exchange, Action.MODELS_WRITE)
    gateway = exchange.gateway
    entry = named(gateway.catalogue, exchange.path_params["model"])
    watch = gateway.services[entry.service]
    info = await move(watch, entry.id, allowed.principal.tenant, exchange.record.request_id)
    await gateway.administration.note(allowed.by, action, entry.id, {"state": str(info.state)})
    moved = ModelMoved(
        id=entry.id,
        service=entry.service,
        state=str(info.state),
        memory_bytes=info.memory_bytes,
        verified_at=info.verified_at.isoformat() if info.verified_at else None,
        detail=info.detail,
    )
    await exchange.reply(_ENCODER.encode(moved))
