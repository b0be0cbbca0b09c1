"""Composes the REST server: routes, error handlers, middleware. Called by `__main__` and tests."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from uuid_utils import uuid7

from atrium_common.errors import AtriumError
from atrium_gateway.api.exchange import ExchangeRoute
from atrium_gateway.api.keyed import KeyedRoute
from atrium_gateway.api.openapi import schemas, with_key
from atrium_gateway.api.routes import PATHS, SOCKETS, STRUCTS
from atrium_gateway.auth.networks import Network
from atrium_gateway.deps import Gateway
from atrium_gateway.errors import handle
from atrium_gateway.middleware.access_log import AccessLog
from atrium_gateway.middleware.body_limit import BodyLimit, BodyLimits
from atrium_gateway.middleware.http_metrics import HttpMetrics
from atrium_gateway.middleware.observe import Observe
from atrium_gateway.middleware.proxies import TrustedProxies
from atrium_gateway.middleware.security_headers import DOCS, SecurityHeaders
from atrium_gateway.middleware.shortcut import Shortcut
from atrium_gateway.middleware.sockets import Sockets
from atrium_gateway.middleware.trace import CallerTrace

TITLE = "Atrium"
EXPOSED_HEADERS = (
    "x-request-id",
    "traceparent",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "idempotency-replayed",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-characters",
    "x-ratelimit-remaining-characters",
    "x-ratelimit-reset-characters",
    "x-ratelimit-limit-audio-seconds",
    "x-ratelimit-remaining-audio-seconds",
    "x-ratelimit-reset-audio-seconds",
    "x-ratelimit-limit-images",
    "x-ratelimit-remaining-images",
    "x-ratelimit-reset-images",
    "x-ratelimit-limit-megapixel-steps",
    "x-ratelimit-remaining-megapixel-steps",
    "x-ratelimit-reset-megapixel-steps",
    "x-ratelimit-limit-pages",
    "x-ratelimit-remaining-pages",
    "x-ratelimit-reset-pages",
    "x-ratelimit-limit-gpu-milliseconds",
    "x-ratelimit-remaining-gpu-milliseconds",
    "x-ratelimit-reset-gpu-milliseconds",
    "x-ratelimit-limit-cost",
    "x-ratelimit-remaining-cost",
    "x-ratelimit-reset-cost",
    "ratelimit-policy",
    "ratelimit",
    "x-atrium-id",
    "x-atrium-next-page",
    "x-atrium-model",
    "x-atrium-seed",
    "x-atrium-steps",
    "x-atrium-pages",
    "x-atrium-document-pages",
    "x-atrium-voice",
    "x-atrium-sample-rate",
)


def create_app(
    gateway: Gateway,
    *,
    limits: BodyLimits,
    registry: CollectorRegistry,
    access_log: AccessLog,
    cors_origins: Sequence[str] = (),
    trusted_proxies: Sequence[Network] = (),
    new_request_id: Callable[[], str] = lambda: f"req_{uuid7().hex}",
    tracer: Tracer | None = None,
) -> ASGIApp:
    """Makes the server's application.

    Args:
        gateway: What the endpoints use.
        limits: How large and how slow a body may be.
        registry: Takes the HTTP metrics.
        access_log: Takes one line per request.
        cors_origins: Origins that browsers may call from.
        trusted_proxies: Networks of proxies whose ``X-Forwarded-For`` counts.
        new_request_id: Names requests that bring no id.
        tracer: Makes a span of each request; traces are only passed on without one.
    """
    # Its page of the API comes with its script: a suite without the internet has docs, too.
    app = FastAPIOffline(
        docs_url=DOCS,
        redoc_url=None,
        static_url=f"{DOCS}/assets",
        title=TITLE,
        version=version("atrium-gateway"),
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    for path in PATHS:
        app.router.add_api_route(
            path.path,
            path.endpoint,
            methods=[path.method],
            tags=[path.tag],
            status_code=int(next(iter(path.operation.description["responses"]))),
            openapi_extra=with_key(path.method, path.operation.description),
            response_class=Response,
            route_class_override=KeyedRoute if path.method == "POST" else ExchangeRoute,
        )
    for kind in (AtriumError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handle)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    plain = {
        (path.method, path.path): route
        for path in PATHS
        for route in app.routes
        if isinstance(route, ExchangeRoute)
        and route.path == path.path
        and path.method in (route.methods or ())
        and "{" not in path.path
    }
    sockets = {path: (plain["GET", path], endpoint) for path, endpoint in SOCKETS.items()}
    return _wrapped(
        Sockets(Shortcut(app, plain, handle), sockets, outer=app, origins=cors_origins),
        limits=limits,
        metrics=HttpMetrics(registry),
        access_log=access_log,
        cors_origins=cors_origins,
        trusted_proxies=trusted_proxies,
        new_request_id=new_request_id,
        tracer=tracer,
    )


def _wrapped(
    app: ASGIApp,
    *,
    limits: BodyLimits,
    metrics: HttpMetrics,
    access_log: AccessLog,
    cors_origins: Sequence[str],
    trusted_proxies: Sequence[Network],
    new_request_id: Callable[[], str],
    tracer: Tracer | None,
) -> ASGIApp:
    """Puts the middleware around the app, the innermost first.

    It stands outside FastAPI's own, so that a defect's answer has its headers too.
    """
    app = BodyLimit(CallerTrace(app, tracer), limits)
    if cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            # Whatever a listed page sends: official clients add headers of their own, and no
            # cookie is ever read, so that a header gives no rights but a bearer's.
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app = SecurityHeaders(app)
    app = Observe(app, log=access_log, metrics=metrics, new_id=new_request_id)
    return TrustedProxies(app, trusted_proxies) if trusted_proxies else app


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        page = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = page.setdefault("components", {})
        components["schemas"] = schemas(STRUCTS)
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = page
    return app.openapi_schema
