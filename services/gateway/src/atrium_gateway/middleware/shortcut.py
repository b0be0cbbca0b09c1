"""Leads requests to plain paths straight to their endpoints, past FastAPI's own layers.

FastAPI still has every route: it describes them in `/docs`, matches paths with
parameters and says 404 and 405. Its middleware and router cost as much as the rest of
the gateway's own work on a request, so the known paths do without.
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from atrium_gateway.middleware.request_record import record_of

Handler = Callable[[Request, Exception], Awaitable[Response]]


class Shortcut:
    """Serves the paths of a table; passes everything else on to the app."""

    def __init__(
        self, app: FastAPI, routes: Mapping[tuple[str, str], Route], handle: Handler
    ) -> None:
        """Args: routes: By method and path. handle: Answers for what an endpoint raises."""
        self._app = app
        self._routes = routes
        self._handle = handle

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection's scope."""
        route = self._routes.get((scope.get("method", ""), scope["path"]))
        if route is None:
            return self._app(scope, receive, send)
        scope["app"] = self._app
        scope["route"] = route
        return answered(route.app, scope, receive, send, self._handle)


async def answered(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, handle: Handler
) -> None:
    """Runs an endpoint; what it raises before it answers becomes the answer."""
    try:
        await app(scope, receive, send)
    except Exception as error:
        if record_of(scope).status:
            raise  # an answer has begun: `observe.py` closes the connection
        response = await handle(Request(scope, receive), error)
        await response(scope, receive, send)
