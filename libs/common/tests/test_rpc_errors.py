"""Every error of the tree survives the wire; foreign statuses lose only their text."""

from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_common import errors
from atrium_common.errors import AtriumError, LimitViolation, QuotaExceeded
from atrium_common.interceptors.errors import (
    DETAILS_KEY,
    conceal,
    from_rpc_error,
    status_code,
    to_status,
)

TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, AtriumError)
    and kind not in (AtriumError, QuotaExceeded)
]
SECONDS = st.integers(0, 10**9).map(lambda us: timedelta(microseconds=us))
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=200)


def over_the_wire(error: AtriumError) -> AtriumError:
    """Does what a server and a client do with an error."""
    status = to_status(error)
    return from_rpc_error(
        grpc.aio.AioRpcError(
            status_code(error),
            grpc.aio.Metadata(),
            grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString())),
            details=status.message,
        )
    )


def foreign(code: grpc.StatusCode, details: str = "10.0.0.7:7865 said no") -> AtriumError:
    """Reads a status that no Atrium server made."""
    return from_rpc_error(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
    )


@given(
    kind=st.sampled_from(TREE),
    message=TEXT,
    reason=st.none() | st.from_regex(r"[A-Z][A-Z_]{0,40}", fullmatch=True),
    field=st.none() | TEXT,
    retry_after=st.none() | SECONDS,
    metadata=st.dictionaries(st.from_regex(r"[a-z]{1,10}x", fullmatch=True), TEXT, max_size=4),
)
def test_an_error_comes_back_as_it_was(kind, message, reason, field, retry_after, metadata) -> None:
    sent = kind(message, reason=reason, field=field, retry_after=retry_after, metadata=metadata)
    got = over_the_wire(sent)
    assert type(got) is kind
    for name in ("message", "reason", "field", "retry_after", "metadata"):
        assert getattr(got, name) == getattr(sent, name)


@given(
    violations=st.lists(
        st.builds(
            LimitViolation,
            unit=TEXT,
            window=SECONDS,
            limit=st.integers(0, 2**60),
            remaining=st.integers(0, 2**60),
            reset_time=st.datetimes(
                datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)
            ),
            scope=TEXT,
        ),
        min_size=1,
        max_size=8,
    ).map(tuple),
    reason=st.sampled_from(["RATE_LIMITED", "INSUFFICIENT_QUOTA"]),
    retry_after=st.none() | SECONDS,
)
def test_a_quota_keeps_its_violations(violations, reason, retry_after) -> None:
    sent = QuotaExceeded("full", violations=violations, reason=reason, retry_after=retry_after)
    got = over_the_wire(sent)
    assert isinstance(got, QuotaExceeded)
    assert got.violations == violations
    assert (got.reason, got.retry_after) == (reason, retry_after)


def test_every_error_has_a_status_of_its_own_kind() -> None:
    assert {kind.__name__: status_code(kind("x")).name for kind in TREE} == {
        "InvalidArgument": "INVALID_ARGUMENT",
        "MediaError": "INVALID_ARGUMENT",
        "TooLarge": "INVALID_ARGUMENT",
        "Unauthenticated": "UNAUTHENTICATED",
        "PermissionDenied": "PERMISSION_DENIED",
        "NotFound": "NOT_FOUND",
        "Conflict": "FAILED_PRECONDITION",
        "Overloaded": "RESOURCE_EXHAUSTED",
        "DeadlineExceeded": "DEADLINE_EXCEEDED",
        "Cancelled": "CANCELLED",
        "Unavailable": "UNAVAILABLE",
        "Unimplemented": "UNIMPLEMENTED",
        "InternalError": "INTERNAL",
    }


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0] != 0])
def test_a_foreign_status_keeps_no_text(code: grpc.StatusCode) -> None:
    error = foreign(code)
    assert "10.0.0.7" not in error.message
    if code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL):
        assert not isinstance(error, errors.InternalError)


def test_a_server_that_dies_in_a_call_is_unavailable_not_cancelled() -> None:
    assert isinstance(foreign(grpc.StatusCode.CANCELLED), errors.Unavailable)
    assert foreign(grpc.StatusCode.UNAVAILABLE).retry_after == timedelta(seconds=1)


def test_details_that_are_no_message_are_passed_over() -> None:
    broken = grpc.aio.AioRpcError(
        grpc.StatusCode.NOT_FOUND,
        grpc.aio.Metadata(),
        grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff")),
        details="x",
    )
    assert isinstance(from_rpc_error(broken), errors.NotFound)


def test_a_long_message_fits_the_trailers() -> None:
    status = to_status(errors.InvalidArgument("x" * 100_000, field="f"))
    assert len(status.SerializeToString()) < 4096


def test_concealing_keeps_the_cause_out_of_the_answer() -> None:
    error = conceal(ValueError("key=abc"), request_id="r", method="/m")
    assert "abc" not in f"{error.message}{error.metadata}"
    assert error.metadata["reference"] in error.message
