"""One running RPC at the edge: how it begins, what it sees, how it ends.

Made by `edge.py` for every RPC. The broad `except` of the suite is here: what leaves
`run` is a gRPC status or the caller's own cancel, nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from atrium.common.v1 import usage_pb2
from atrium_common.admission_client import Outcome
from atrium_common.context import (
    RequestContext,
    bind_context,
    bind_cover,
    bind_usage_report,
    current_context,
)
from atrium_common.errors import AtriumError, DeadlineExceeded, PermissionDenied
from atrium_common.interceptors import errors
from atrium_common.interceptors.accounts import Account
from atrium_common.interceptors.auth import Caller
from atrium_common.interceptors.context import make_context, request_id
from atrium_common.interceptors.metadata import REQUEST_ID, RESERVATION, texts
from atrium_common.interceptors.meter import Meter
from atrium_common.interceptors.metrics import MethodMetrics
from atrium_common.interceptors.requests import Requests
from atrium_common.interceptors.surroundings import Surroundings
from atrium_common.interceptors.usage import Identity
from atrium_common.service import Context
from atrium_common.wire import usage_from_proto, usage_in

T = TypeVar("T")

_SETTLE_SECONDS: Final = 2.0
"""How long an answer waits for its ledger record; then the settlement goes on alone."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Call:
    """One RPC from its first byte to its status."""

    __slots__ = (
        "_account",
        "_began",
        "_caller",
        "_context",
        "_ending",
        "_interruption",
        "_last",
        "_meter",
        "_method",
        "_metrics",
        "_reason",
        "_requests",
        "_server",
        "_task",
        "request_id",
    )

    def __init__(
        self,
        server: Surroundings,
        method: str,
        context: Context,
        metrics: MethodMetrics,
        requests: Requests | None,
    ) -> None:
        self._server = server
        self._method = method
        self._context = context
        self._metrics = metrics
        self._caller: Caller | None = None
        self._meter: Meter | None = None
        self._account: Account | None = None
        self._last: Message | None = None
        self._task: asyncio.Task[Any] | None = None
        self._interruption: AtriumError | None = None
        self._ending = False
        self.request_id = ""
        self._requests = requests
        self._began = 0.0
        self._reason = ""

    def interrupt(self, error: AtriumError) -> None:
        """Ends the call with `error` at its next await, unless it is ending already."""
        if not self._ending and self._interruption is None and self._task is not None:
            self._interruption = error
            self._task.cancel()

    async def run(self, work: Callable[["Call"], Awaitable[T]]) -> T:
        """Runs the call's work between its beginning and its end."""
        metadata = texts(self._context.invocation_metadata())
        span = self._server.tracing.start(self._method, metadata)
        started = self._began = self._metrics.started()
        code = grpc.StatusCode.OK
        try:
            return await self._guarded(work, metadata)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except _Ended as end:
            code = end.code
            raise end.abort from None
        finally:
            self._server.running.leave(self)
            consumed = self._consumed()
            if self._account is not None:
                self._account.end(self._last)
            self._metrics.ended(started, code, consumed)
            if span is not None:
                span.end(
                    code,
                    request_id=self.request_id,
                    reason=self._reason,
                    usage=usage_from_proto(consumed) if consumed is not None else None,
                )

    async def _guarded(self, work: Callable[["Call"], Awaitable[T]], metadata: dict[str, str]) -> T:
        self.request_id = request_id(metadata)
        self._task = asyncio.current_task()
        limit: asyncio.Timeout | None = None
        try:
            await self._begin(metadata)
            remaining = self._context.time_remaining()
            if remaining is None and self._server.default_deadline is not None:
                remaining = self._server.default_deadline
                limit = asyncio.timeout(remaining)
            self._enter_context(remaining)
            if limit is None:
                result = await work(self)
            else:
                async with limit:
                    result = await work(self)
            self._ending = True
            await self._settle(Outcome.COMPLETED)
            return result
        except asyncio.CancelledError:
            self._ending = True
            if self._interruption is None or self._has_left():
                self._failed("CANCELLED")
                self._close(Outcome.CANCELLED, "CANCELLED")
                raise
            await self._fail(self._interruption)
        except grpc.aio.AbortError as abort:
            self._ending = True
            self._failed("ABORTED")
            await self._settle(Outcome.FAILED, "ABORTED")
            raise _Ended(_code(self._context), abort) from abort
        except AtriumError as error:
            await self._fail(error)
        except Exception as error:
            if limit is not None and limit.expired() and isinstance(error, TimeoutError):
                await self._fail(DeadlineExceeded("The service's deadline has passed."))
            await self._fail(errors.conceal(error, request_id=self.request_id, method=self._method))

    def _has_left(self) -> bool:
        """Says whether the caller has cancelled too, where we have interrupted the call."""
        return self._task is None or self._task.uncancel() > 0 or self._context.cancelled()

    async def _begin(self, metadata: dict[str, str]) -> None:
        # The gateway knows the id that it sent, and this is a write of its own.
        if RESERVATION not in metadata or REQUEST_ID not in metadata:
            await self._context.send_initial_metadata(((REQUEST_ID, self.request_id),))
        self._server.running.enter(self)
        caller = self._server.authenticator.identify(metadata, peer=self._context.peer() or "")
        if not caller.trusted and (
            self._server.usage is None or self._method in self._server.trusted_only
        ):
            raise PermissionDenied("This method needs the service credential.")
        self._caller = caller

    def _enter_context(self, remaining: float | None) -> None:
        assert self._caller is not None  # noqa: S101 - `_begin` has set it
        bind_context(
            make_context(
                self._caller,
                request_id=self.request_id,
                time_remaining=remaining,
                clock=self._server.clock,
            )
        )

    @property
    def is_admitted(self) -> bool:
        """Whether the caller brought a reservation, so that no estimate is needed."""
        return self._caller is not None and self._caller.reservation_id is not None

    async def admit(self, request: Message | None) -> None:
        """Lets the call pass by its first request, or raises what refuses it."""
        gate = self._server.usage
        if gate is None or self._caller is None:
            return
        admitted = await gate.admit(
            self._caller,
            request,
            method=self._method,
            request_id=self.request_id,
            interrupt=self.interrupt,
        )
        if isinstance(admitted, Meter):
            self._meter = admitted
            bind_usage_report(admitted.report)
            bind_cover(admitted.cover)
            grant = admitted.grant
            bind_context(
                replace(
                    current_context(),
                    tenant=grant.tenant,
                    subject=grant.subject,
                    weight=grant.weight,
                    reservation_id=grant.reservation_id,
                )
            )
        elif isinstance(admitted, Identity):
            context: RequestContext = current_context()
            bind_context(
                replace(
                    context,
                    tenant=admitted.tenant,
                    subject=admitted.subject,
                    weight=admitted.weight,
                )
            )

    def keep_account(self) -> None:
        """Remembers what a call with one answer consumes, if its caller brought a reservation."""
        caller = self._caller
        if caller is not None and caller.reservation_id is not None:
            self._account = self._server.accounts.open(caller.reservation_id)
            bind_usage_report(self._account.report)

    def note(self, response: Message) -> bool:
        """Looks at a response before it is sent; says whether `grow` is due after it."""
        self._last = response
        return self._meter is not None and self._meter.see(response)

    def sent(self, response: Message) -> bool:
        """Hears of a streamed message that left; says whether it was the first with content."""
        return self._metrics.sent(self._began, response)

    async def grow(self) -> None:
        """Grows the reservation over what was seen; raises `QuotaExceeded` if it can't."""
        if self._meter is not None:
            await self._meter.grow()

    async def _fail(self, error: AtriumError) -> NoReturn:
        self._ending = True
        self._failed(error.reason)
        await self._settle(Outcome.FAILED, error.reason)
        self._server.log.info(
            "refused", method=self._method, reason=error.reason, request_id=self.request_id
        )
        if self._requests is not None:
            await self._requests.discard()
        try:
            await errors.abort(self._context, error)
        except grpc.aio.AbortError as abort:
            raise _Ended(errors.status_code(error), abort) from error

    def _failed(self, reason: str) -> None:
        self._reason = reason
        self._metrics.failed(reason)

    def _close(self, outcome: Outcome, reason: str = "") -> "asyncio.Task[None] | None":
        return None if self._meter is None else self._meter.close(outcome, reason)

    async def _settle(self, outcome: Outcome, reason: str = "") -> None:
        task = self._close(outcome, reason)
        if task is not None:
            # `wait` neither cancels the settlement nor raises what it raises.
            await asyncio.wait({task}, timeout=_SETTLE_SECONDS)

    def _consumed(self) -> usage_pb2.Usage | None:
        if self._last is None:
            return None if self._account is None else self._account.usage
        return usage_in(self._last)


class _Ended(Exception):
    """Carries the status of a call that grpc has been told about."""

    def __init__(self, code: grpc.StatusCode, abort: grpc.aio.AbortError) -> None:
        super().__init__(code)
        self.code = code
        self.abort = abort


def _code(context: Context) -> grpc.StatusCode:
    # The stubs promise a StatusCode; after an abort it is its number.
    code: object = context.code()
    if isinstance(code, int):
        return _CODES.get(code, grpc.StatusCode.UNKNOWN)
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
