"""Headers that tell browsers to trust an answer no further than they must."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COMMON = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_STRICT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
DOCS = "/docs"
"""Where the page of the API and its files stand."""
_DOCS_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
)
_NO_STORE = (b"cache-control", b"no-store")


class SecurityHeaders:
    """Adds the headers to every answer; the docs page gets a policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection's scope."""
        if scope["type"] not in ("http", "websocket"):
            return self._app(scope, receive, send)
        policy = _DOCS_POLICY if scope["path"].startswith(DOCS) else _STRICT

        def send_guarded(message: Message) -> Awaitable[None]:
            # Not the acceptance of a WebSocket: nothing of it is shown or kept.
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                given = message.get("headers", ())
                kept = () if b"cache-control" in dict(given) else (_NO_STORE,)
                message["headers"] = [*given, *_COMMON, policy, *kept]
            return send(message)

        return self._app(scope, receive, send_guarded)
