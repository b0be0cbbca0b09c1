"""Puts the caller's own address in the place of a trusted proxy's, for everyone behind it.

`app.py` installs it only where proxies are configured; what anybody else says in
``X-Forwarded-For`` counts for nothing.
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from atrium_gateway.auth.networks import Network, client_address

_HEADER = b"x-forwarded-for"
_UNKNOWN_PORT = 0


class TrustedProxies:
    """Reads ``X-Forwarded-For`` where a trusted proxy sends it.

    Args:
        app: Serves the request.
        trusted: Networks of the proxies.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's scope."""
        client = scope.get("client")
        if client:
            # Headers of one name are one list, in their order (RFC 9110, section 5.3).
            told = [str(value, "latin-1") for name, value in scope["headers"] if name == _HEADER]
            address = client_address(client[0], ",".join(told), self._trusted)
            if address != client[0]:
                scope["client"] = (address, _UNKNOWN_PORT)
        await self._app(scope, receive, send)


def address_of(scope: Scope) -> str:
    """The address that a scope's caller has; ``""`` if it is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""
