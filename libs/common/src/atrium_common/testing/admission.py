"""An AdmissionService that does what a test says and remembers what it was told."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import grpc.aio

from atrium.admission.v1 import admission_pb2 as pb
from atrium.admission.v1 import admission_pb2_grpc
from atrium_common.domain import Usage
from atrium_common.errors import (
    AtriumError,
    LimitViolation,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
)
from atrium_common.interceptors.errors import abort
from atrium_common.interceptors.metadata import SERVICE, texts
from atrium_common.service import Context
from atrium_common.wire import duration_to_proto, usage_from_proto


@dataclass(slots=True)
class Booking:
    """One reservation and what became of it.

    Attributes:
        request: What was asked for.
        tenant: Who pays.
        bound: Upper bound now.
        renewals: How often it was renewed.
        outcome: ``"COMPLETED"``, ``"CANCELLED"``, ``"FAILED"``, ``"REFUNDED"`` or
            ``None`` while it is open.
        usage: What was charged.
        usage_by_model: The same by model, where the service told it.
        closings: Settlements and refunds that arrived, repeated ones included.
        reason: Of a refund.
    """

    request: pb.AdmitRequest
    tenant: str
    bound: Usage
    renewals: int = 0
    outcome: str | None = None
    usage: Usage | None = None
    usage_by_model: Sequence[Usage] = ()
    closings: int = 0
    reason: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class FakeAdmission(admission_pb2_grpc.AdmissionServiceServicer):
    """`async with FakeAdmission() as admission:` then pass it to `running_server`.

    Attributes:
        tokens: Tokens that hold, and the tenant of each.
        lease: Lease that is granted.
        request_limit: Reservations granted before a limit refuses; ``None`` for all.
        growth_limit: Says whether a grown bound still fits.
        fail: Error raised by the named RPC (``"Admit"`` ...) while it is set.
        delay: Seconds that the named RPC takes before it does anything.
        bookings: Every reservation by its id, in order.
    """

    def __init__(self, *, credential: str = "test-service-credential") -> None:
        self.tokens: dict[str, str] = {"good-token": "acme"}
        self.lease = timedelta(seconds=60)
        self.request_limit: int | None = None
        self.growth_limit: Callable[[Usage], bool] = lambda bound: True
        self.fail: dict[str, AtriumError] = {}
        self.delay: dict[str, float] = {}
        self.bookings: dict[str, Booking] = {}
        self.target = ""
        self._credential = credential
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; after a `stop`, on the same port again."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        admission_pb2_grpc.add_AdmissionServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.target or "127.0.0.1:0")
        self.target = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Drops every connection, as a dying gateway does."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    @property
    def last(self) -> Booking:
        """The latest reservation."""
        return next(reversed(self.bookings.values()))

    async def closed(self, count: int = 1, *, timeout: float = 5.0) -> list[Booking]:
        """Waits until `count` reservations are closed; returns all of them, in order."""
        async with asyncio.timeout(timeout):
            while len([b for b in self.bookings.values() if b.outcome]) < count:
                await self._changed.wait()
                self._changed.clear()
        return list(self.bookings.values())

    async def Admit(self, request: pb.AdmitRequest, context: Context) -> pb.AdmitResponse:
        """Grants a lease, or refuses a bad token or a request over the limit."""
        await self._begin("Admit", context)
        if request.WhichOneof("caller") == "token":
            tenant = self.tokens.get(request.token, "")
            if not tenant:
                await abort(context, Unauthenticated("The token does not hold."))
        else:
            tenant = request.tenant
        if self.request_limit is not None and len(self._charged()) >= self.request_limit:
            await abort(context, self._refusal("requests", self.request_limit))
        identifier = f"reservation-{len(self.bookings) + 1}"
        self.bookings[identifier] = Booking(
            request=request, tenant=tenant, bound=usage_from_proto(request.estimate)
        )
        return pb.AdmitResponse(
            reservation_id=identifier,
            tenant=tenant,
            subject=f"user-of-{tenant}",
            weight=2.0,
            lease=duration_to_proto(self.lease),
        )

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        """Counts the renewal and grows the bound where it fits."""
        await self._begin("Renew", context)
        booking = await self._find(request, context)
        if booking.outcome is not None:
            await abort(context, NotFound("The reservation is closed."))
        if request.HasField("estimate"):
            bound = usage_from_proto(request.estimate)
            if not self.growth_limit(bound):
                await abort(context, self._refusal("tokens", 0))
            booking.bound = bound
        booking.renewals += 1
        return pb.RenewResponse(lease=duration_to_proto(self.lease))

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        """Records the charge; a second one changes nothing."""
        await self._begin("Settle", context)
        booking = await self._find(request, context)
        name = pb.Outcome.Name(request.outcome).removeprefix("OUTCOME_")
        if booking.outcome is None:
            booking.usage_by_model = tuple(map(usage_from_proto, request.usage_by_model))
        self._close(booking, name, usage_from_proto(request.usage))
        return pb.SettleResponse()

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResponse:
        """Records the refund; a second one changes nothing."""
        await self._begin("Refund", context)
        booking = await self._find(request, context)
        booking.reason = booking.reason or request.reason
        self._close(booking, "REFUNDED", None)
        return pb.RefundResponse()

    async def _begin(self, name: str, context: Context) -> None:
        if texts(context.invocation_metadata()).get(SERVICE) != self._credential:
            await abort(context, Unauthenticated("The service credential does not hold."))
        if name in self.delay:
            await asyncio.sleep(self.delay[name])
        if name in self.fail:
            await abort(context, self.fail[name])

    async def _find(
        self, request: pb.RenewRequest | pb.SettleRequest | pb.RefundRequest, context: Context
    ) -> Booking:
        booking = self.bookings.get(request.reservation_id)
        if booking is None or booking.tenant != request.tenant:
            await abort(context, NotFound("There is no such reservation."))
        return booking

    def _charged(self) -> list[Booking]:
        return [booking for booking in self.bookings.values() if booking.outcome != "REFUNDED"]

    def _close(self, booking: Booking, outcome: str, usage: Usage | None) -> None:
        booking.closings += 1
        if booking.outcome is None:
            booking.outcome = outcome
            booking.usage = usage
            booking.closed.set()
            self._changed.set()

    @staticmethod
    def _refusal(unit: str, limit: int) -> QuotaExceeded:
        violation = LimitViolation(
            unit=unit,
            window=timedelta(hours=1),
            limit=limit,
            remaining=0,
            reset_time=datetime.now(UTC) + timedelta(hours=1),
            scope="tenant:acme",
        )
        return QuotaExceeded(
            "The limit of this tenant is reached.",
            violations=(violation,),
            retry_after=timedelta(hours=1),
        )
