"""The error tree on the wire: the one table to gRPC statuses, and the way back.

The edge of every server ends a failed RPC with `abort`; clients (the gateway's
upstreams, the admission client) turn what they catch back with `from_rpc_error`.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn
from uuid import uuid4

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from atrium_common import errors
from atrium_common.errors import AtriumError, InternalError, LimitViolation, QuotaExceeded
from atrium_common.interceptors.metadata import pairs
from atrium_common.wire import duration_from_proto, duration_to_proto

DOMAIN: Final = "atrium"
DETAILS_KEY: Final = "grpc-status-details-bin"
_KIND: Final = "kind"
# Trailing metadata shares an 8 KiB budget with everything else in the trailers.
_MAX_MESSAGE: Final = 1024
_MAX_VIOLATIONS: Final = 8

_CODES: Final[dict[type[AtriumError], grpc.StatusCode]] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

# Statuses share errors (INVALID_ARGUMENT, RESOURCE_EXHAUSTED), so the kind travels too.
_KINDS: Final[dict[str, type[AtriumError]]] = {
    kind.default_reason: kind
    for kind in (
        errors.InvalidArgument,
        errors.MediaError,
        errors.TooLarge,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.Conflict,
        errors.Overloaded,
        errors.DeadlineExceeded,
        errors.Cancelled,
        errors.Unavailable,
        errors.Unimplemented,
        errors.InternalError,
    )
}

# What a caller is told when the other side is no Atrium server, or died: the text of
# such a status comes from the transport and may name hosts.
_FOREIGN: Final[dict[grpc.StatusCode, tuple[type[AtriumError], str]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (errors.InvalidArgument, "The request is not valid."),
    grpc.StatusCode.OUT_OF_RANGE: (errors.InvalidArgument, "The request is not valid."),
    grpc.StatusCode.UNAUTHENTICATED: (errors.Unauthenticated, "The credential does not hold."),
    grpc.StatusCode.PERMISSION_DENIED: (errors.PermissionDenied, "This is not allowed."),
    grpc.StatusCode.NOT_FOUND: (errors.NotFound, "There is no such thing."),
    grpc.StatusCode.ALREADY_EXISTS: (errors.Conflict, "It exists already."),
    grpc.StatusCode.FAILED_PRECONDITION: (errors.Conflict, "Its state does not allow this."),
    grpc.StatusCode.ABORTED: (errors.Unavailable, "The service could not finish; try again."),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (errors.Overloaded, "The service has no room now."),
    grpc.StatusCode.DEADLINE_EXCEEDED: (errors.DeadlineExceeded, "The deadline has passed."),
    # A call that we cancel ourselves raises CancelledError: this one came from over there.
    grpc.StatusCode.CANCELLED: (errors.Unavailable, "The service ended the call."),
    grpc.StatusCode.UNAVAILABLE: (errors.Unavailable, "The service can't be reached."),
    grpc.StatusCode.UNIMPLEMENTED: (errors.Unimplemented, "The service does not offer this."),
}


def status_code(error: AtriumError) -> grpc.StatusCode:
    """Returns the gRPC status of an error: that of its nearest class in the table."""
    for kind in type(error).__mro__:
        code = _CODES.get(kind)
        if code is not None:
            return code
    return grpc.StatusCode.INTERNAL


def to_status(error: AtriumError) -> status_pb2.Status:
    """Makes the `google.rpc.Status` with ErrorInfo, BadRequest, RetryInfo, QuotaFailure."""
    metadata = dict(error.metadata)
    metadata[_KIND] = error.default_reason
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message[:_MAX_MESSAGE]
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = duration_to_proto(error.retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, QuotaExceeded):
        violations = [_violation_to_proto(one) for one in error.violations[:_MAX_VIOLATIONS]]
        details.append(error_details_pb2.QuotaFailure(violations=violations))
    status = status_pb2.Status(
        code=status_code(error).value[0], message=error.message[:_MAX_MESSAGE]
    )
    for detail in details:
        status.details.add().Pack(detail)
    return status


async def abort(
    context: grpc.aio.ServicerContext[Message, Message], error: AtriumError
) -> NoReturn:
    """Ends an RPC with the status of `error`; raises `grpc.aio.AbortError`."""
    status = to_status(error)
    await context.abort(
        status_code(error),
        status.message,
        trailing_metadata=((DETAILS_KEY, status.SerializeToString()),),
    )


def conceal(error: BaseException, *, request_id: str, method: str) -> InternalError:
    """Logs an error that nobody expected and returns the one that the caller may see.

    The caller gets a reference id and nothing of the cause; the log has both.
    """
    reference = uuid4().hex[:12]
    structlog.get_logger("atrium.errors").error(
        "unhandled error",
        reference=reference,
        request_id=request_id,
        method=method,
        error_type=type(error).__name__,
        exc_info=error,
    )
    return InternalError(
        f"Something went wrong on our side (reference {reference}).",
        metadata={"reference": reference},
    )


def from_rpc_error(error: grpc.aio.AioRpcError) -> AtriumError:
    """Turns a failed call back into the error that the server raised.

    A status without Atrium's details (the transport's own, or another server's)
    keeps its meaning but not its text, which may name hosts.
    """
    status = _details(error)
    if status is not None:
        info = error_details_pb2.ErrorInfo()
        if _unpack(status, info) and info.domain == DOMAIN:
            return _rebuild(status, info)
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        return errors.TooLarge("The message is over the size limit.")
    kind, message = _FOREIGN.get(code, (InternalError, "The service failed."))
    retry = timedelta(seconds=1) if kind in (errors.Unavailable, errors.Overloaded) else None
    return kind(message, retry_after=retry)


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in pairs(error.trailing_metadata()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _unpack(status: status_pb2.Status, into: Message) -> bool:
    return any(detail.Unpack(into) for detail in status.details)


def _rebuild(status: status_pb2.Status, info: error_details_pb2.ErrorInfo) -> AtriumError:
    metadata = dict(info.metadata)
    kind = metadata.pop(_KIND, "")
    retry = error_details_pb2.RetryInfo()
    retry_after = duration_from_proto(retry.retry_delay) if _unpack(status, retry) else None
    quota = error_details_pb2.QuotaFailure()
    if kind == QuotaExceeded.default_reason and _unpack(status, quota):
        violations = tuple(_violation_from_proto(one) for one in quota.violations)
        return QuotaExceeded(
            status.message, violations=violations, reason=info.reason, retry_after=retry_after
        )
    bad = error_details_pb2.BadRequest()
    field = bad.field_violations[0].field if _unpack(status, bad) else None
    return _KINDS.get(kind, InternalError)(
        status.message,
        reason=info.reason,
        field=field,
        retry_after=retry_after,
        metadata=metadata,
    )


def _violation_to_proto(violation: LimitViolation) -> error_details_pb2.QuotaFailure.Violation:
    seconds = violation.window.total_seconds()
    return error_details_pb2.QuotaFailure.Violation(
        subject=violation.scope,
        description=f"{violation.limit} {violation.unit} in {seconds:g} s",
        quota_metric=violation.unit,
        quota_id=violation.name,
        quota_value=violation.limit,
        quota_dimensions={
            "window": repr(seconds),
            "remaining": str(violation.remaining),
            "reset": violation.reset_time.isoformat(),
        },
    )


def _violation_from_proto(message: error_details_pb2.QuotaFailure.Violation) -> LimitViolation:
    dimensions = message.quota_dimensions
    reset = dimensions.get("reset", "")
    return LimitViolation(
        unit=message.quota_metric,
        window=timedelta(seconds=float(dimensions.get("window", "0"))),
        limit=message.quota_value,
        remaining=int(dimensions.get("remaining", "0")),
        reset_time=datetime.fromisoformat(reset) if reset else datetime.now(UTC),
        scope=message.subject,
        name=message.quota_id,
    )
