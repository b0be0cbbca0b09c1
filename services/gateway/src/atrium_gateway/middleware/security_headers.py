"""Headers that tell browsers to trust an answer no further than they must."""

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's scope."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        policy = _DOCS_POLICY if scope["path"].startswith(DOCS) else _STRICT

        async def send_guarded(message: Message) -> None:
            # Not the acceptance of a WebSocket: nothing of it is shown or kept.
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = [*message.get("headers", ()), *_COMMON, policy]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_guarded)
