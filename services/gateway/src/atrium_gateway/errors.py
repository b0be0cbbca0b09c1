"""How errors look over HTTP: one table from the error tree to status, type and code.

`app.py` installs the handlers; `api/events.py` uses the same bodies for a stream
that breaks. `/v1` speaks OpenAI's shape, everything else RFC 9457.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

import msgspec
import structlog
from fastapi import Request, Response
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from atrium_common.errors import (
    AtriumError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    LimitViolation,
    MediaError,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from atrium_gateway.middleware.request_record import record_of
from atrium_gateway.quota.limits import NEVER
from atrium_gateway.ratelimit import limit_headers, seconds_header

logger = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"
DAY = timedelta(days=1)
DEFAULT_RETRY = timedelta(seconds=2)
LINGER_SECONDS = 1.0
LINGER_BYTES = 8 << 20
_DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What a database that is gone, full of work or locked says where no part expected it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        status: HTTP status.
        type: OpenAI's `error.type`.
        code: OpenAI's `error.code`; ``None`` takes the error's reason in lower case.
    """

    status: int
    type: str
    code: str | None = None


TABLE: Mapping[type[AtriumError], Row] = {
    InvalidArgument: Row(400, "invalid_request_error"),
    MediaError: Row(400, "invalid_request_error"),
    TooLarge: Row(413, "invalid_request_error"),
    Unauthenticated: Row(401, "invalid_request_error", "invalid_api_key"),
    PermissionDenied: Row(403, "permission_error"),
    NotFound: Row(404, "invalid_request_error"),
    Conflict: Row(409, "invalid_request_error"),
    QuotaExceeded: Row(429, "rate_limit_error", "rate_limit_exceeded"),
    Overloaded: Row(503, "server_error"),
    DeadlineExceeded: Row(504, "server_error"),
    Cancelled: Row(499, "invalid_request_error"),
    Unavailable: Row(503, "server_error"),
    Unimplemented: Row(501, "invalid_request_error"),
    InternalError: Row(500, "server_error"),
    AtriumError: Row(500, "server_error"),
}
"""Status, type and code of every class of the error tree."""

BY_REASON: Mapping[str, Row] = {
    "IDEMPOTENCY_KEY_REUSED": Row(422, "invalid_request_error"),
}
"""Errors that have a status of their own, apart from others of their class."""

HTTP_REASONS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "INVALID_ARGUMENT",
    426: "UPGRADE_REQUIRED",
}
"""Reasons of the statuses that HTTP itself gives, outside the error tree."""


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """An error as HTTP says it; made by `describe`, rendered by `render`.

    Attributes:
        status: HTTP status.
        type: OpenAI's type.
        code: Lower-case reason.
        message: One sentence, without internals.
        param: Path of the offending field.
        headers: What to do next, in headers.
        limits: The limits that refused, the one that holds longest first.
    """

    status: int
    type: str
    code: str
    message: str
    param: str | None
    headers: Mapping[str, str]
    limits: Sequence[Mapping[str, str | int | None]] = ()


def describe(error: Exception, *, request_id: str) -> HttpFailure:
    """Says any exception in HTTP's terms; what is not ours becomes a 500.

    Args:
        error: What was raised.
        request_id: Stands in for the cause of a defect, so that it can be found
            in the log.
    """
    if isinstance(error, HTTPException):
        return _describe_http(error)
    if not isinstance(error, AtriumError):
        error = InternalError(f"Something broke on our side. Reference: {request_id}.")
    row = BY_REASON.get(error.reason)
    row = row or next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    kind, code = row.type, row.code or error.reason.lower()
    if isinstance(error, QuotaExceeded) and exhausted(error):
        kind = code = "insufficient_quota"
    if isinstance(error, NotFound) and error.field == "model":
        code = "model_not_found"
    limits = [_limit(each) for each in error.violations] if isinstance(error, QuotaExceeded) else ()
    headers = _headers(error, row)
    return HttpFailure(row.status, kind, code, error.message, error.field, headers, limits)


def _limit(violation: LimitViolation) -> Mapping[str, str | int | None]:
    """A limit that refused, as a program reads it: which, how much, and when there is room."""
    return {
        "name": violation.name,
        "scope": violation.scope,
        "unit": violation.unit,
        "window": violation.name.rpartition(":")[2],
        "limit": violation.limit,
        "remaining": violation.remaining,
        "room_at": None if violation.reset_time >= NEVER else violation.reset_time.isoformat(),
    }


def reason_of(error: Exception) -> str:
    """Why, for metrics: the tree's reason, HTTP's own, or a defect's."""
    if isinstance(error, AtriumError):
        return error.reason
    if isinstance(error, HTTPException):
        return HTTP_REASONS.get(error.status_code, f"HTTP_{error.status_code}")
    return InternalError.default_reason


def exhausted(error: QuotaExceeded) -> bool:
    """True when waiting a little is no help: a day's or month's budget is used up.

    Also for work that no empty window would have room for.
    """
    longest = max((v.window for v in error.violations), default=timedelta())
    return longest >= DAY or (not error.retry_after and bool(error.violations))


def render(failure: HttpFailure, *, path: str, request_id: str) -> tuple[bytes, str]:
    """Gives the body and its content type, in the shape of the path's API."""
    if path.startswith("/v1"):
        return openai_body(failure), "application/json"
    problem: dict[str, object] = {
        "type": f"urn:atrium:error:{failure.code.replace('_', '-')}",
        "title": _title(failure.status),
        "status": failure.status,
        "detail": failure.message,
        "code": failure.code,
        "field": failure.param,
        "request_id": request_id,
    }
    if failure.limits:
        problem["limits"] = failure.limits
    return msgspec.json.encode(problem), PROBLEM_JSON


def openai_body(failure: HttpFailure) -> bytes:
    """Gives OpenAI's error object; it always has all four members."""
    return msgspec.json.encode(
        {
            "error": {
                "message": failure.message,
                "type": failure.type,
                "param": failure.param,
                "code": failure.code,
            }
        }
    )


async def handle(request: Request, error: Exception) -> Response:
    """Answers for everything that a route, the router or a middleware raises."""
    record = record_of(request.scope)
    request_id = record.request_id
    if isinstance(error, ClientDisconnect):
        error = Cancelled("The client left before its request had arrived.")
    if isinstance(error, _DATABASE_AWAY):
        logger.error("database_away", request_id=request_id, exc_info=error)
        error = Unavailable("The database can't be reached now.", retry_after=DEFAULT_RETRY)
    if not isinstance(error, AtriumError | HTTPException):
        logger.error("unhandled exception", request_id=request_id, exc_info=error)
    record.reason = reason_of(error)
    failure = describe(error, request_id=request_id)
    body, content_type = render(failure, path=request.url.path, request_id=request_id)
    kind = LingeringResponse if failure.status == 413 else Response
    return kind(
        body, status_code=failure.status, media_type=content_type, headers=dict(failure.headers)
    )


class LingeringResponse(Response):
    """An answer to a body that is not read to its end.

    A connection that is closed while the client still sends is reset, and the client
    may lose the answer; so for a moment the rest is taken and thrown away.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer, then reads on for at most `LINGER_SECONDS` or `LINGER_BYTES`."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = LINGER_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0:
                    message = await receive()
                    if not message.get("more_body"):
                        break
                    left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b""})


def _describe_http(error: HTTPException) -> HttpFailure:
    reason = HTTP_REASONS.get(error.status_code, "HTTP_ERROR")
    headers = dict(error.headers or {})
    message = error.detail
    if error.status_code == 404 and message == "Not Found":
        message = "There is nothing at this path."
    elif error.status_code == 405:
        message = f"This path does not take that method; it takes {headers.get('Allow', 'others')}."
    if error.status_code in {408, 413}:
        headers["connection"] = "close"
    return HttpFailure(
        error.status_code, "invalid_request_error", reason.lower(), message, None, headers
    )


def _headers(error: AtriumError, row: Row) -> dict[str, str]:
    headers: dict[str, str] = {}
    retry = error.retry_after
    if isinstance(error, QuotaExceeded):
        headers |= limit_headers(error.violations)
        if exhausted(error):
            headers["x-should-retry"] = "false"
    elif row.status == 503:
        retry = retry or DEFAULT_RETRY
    elif row.status == 409:
        headers["x-should-retry"] = "true" if retry else "false"
    elif row.status == 401:
        headers["www-authenticate"] = 'Bearer realm="atrium"'
    elif row.status == 413:
        headers["connection"] = "close"
    if retry is not None:
        headers["retry-after"] = seconds_header(retry)
        headers["retry-after-ms"] = str(max(1, round(retry.total_seconds() * 1000)))
    return headers


def _title(status: int) -> str:
    if status == 499:
        return "Client Closed Request"
    return HTTPStatus(status).phrase
