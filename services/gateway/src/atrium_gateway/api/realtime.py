"""`GET /v1/realtime`: live transcription over a WebSocket, as OpenAI's clients speak it.

Here is the handshake; `realtime_session.py` does the rest. Why this protocol:
docs/adr/0007-live-transcription-speaks-openais-protocol.md.
"""

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from uuid_utils import uuid7

from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, Unauthenticated
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.realtime_config import SessionConfig
from atrium_gateway.api.realtime_session import LiveSession, SessionTerms
from atrium_gateway.api.realtime_socket import RealtimeSocket
from atrium_gateway.deps import Gateway
from atrium_gateway.middleware.proxies import address_of
from atrium_gateway.middleware.request_record import record_of

PROTOCOL = "realtime"
_KEY_PROTOCOL = "openai-insecure-api-key."
"""Browsers can't send headers with a WebSocket: OpenAI's clients put the key here."""

ONLY_A_SOCKET: dict[str, Any] = {
    "responses": {"426": {"description": "A WebSocket: live transcription (docs/api.md)."}},
    "security": [{"bearer": []}],
}
"""How `/docs` describes this path."""


async def serve_realtime(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one WebSocket; what is wrong before it is accepted is raised.

    Raises:
        Unauthenticated: No credential, or one that does not hold.
        PermissionDenied: It does not allow transcription.
        InvalidArgument: The query asks for another kind of session.
        NotFound: No such model.
        Overloaded: Too many sessions are open.
        Unavailable: The process is about to end.
    """
    gateway = cast(Gateway, scope["app"].state.gateway)
    record = record_of(scope)
    token, address = _token(scope), address_of(scope)
    principal = await gateway.authenticator.authenticate(token, address=address)
    record.tenant = principal.tenant
    principal.demand(Capability.TRANSCRIPTION)
    query = dict(parse_qsl(str(scope["query_string"], "latin-1"), keep_blank_values=True))
    config = _config(gateway, query)
    record.model = config.model_id
    with gateway.live.enter():
        protocol = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
        await receive()  # the connect message: the handshake has been read
        await send({"type": "websocket.accept", "subprotocol": protocol})
        prefix = uuid7().hex
        terms = SessionTerms(
            principal=principal,
            authenticate=lambda: gateway.authenticator.authenticate(token, address=address),
            config=config,
            record=record,
        )
        socket = RealtimeSocket(receive, send, gateway.live.limits, prefix=prefix)
        await LiveSession(gateway, socket, terms, prefix=prefix).run()


async def show_realtime(exchange: Exchange) -> None:
    """Says that this path is a WebSocket."""
    raise HTTPException(
        426,
        "Open this path as a WebSocket.",
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


def _token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = str(value, "latin-1").partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return token.strip()
    for protocol in scope["subprotocols"]:
        if protocol.startswith(_KEY_PROTOCOL):
            return str(protocol.removeprefix(_KEY_PROTOCOL))
    raise Unauthenticated(
        "Send an API key or a token: 'Authorization: Bearer ...', or the subprotocol "
        f"'{_KEY_PROTOCOL}...' beside '{PROTOCOL}'."
    )


def _config(gateway: Gateway, query: Mapping[str, str]) -> SessionConfig:
    for name, value in query.items():
        if name not in ("intent", "model"):
            raise InvalidArgument(
                f"Unknown parameter: '{name}'.", reason="UNKNOWN_PARAMETER", field=name
            )
        if name == "intent" and value != "transcription":
            raise InvalidArgument(
                "Only sessions with the intent 'transcription' are offered.",
                reason="INVALID_VALUE",
                field="intent",
            )
    asked = query.get("model", "")
    entry = gateway.resolve(asked, Capability.TRANSCRIPTION)
    return SessionConfig(model=asked or entry.id, model_id=entry.id)
