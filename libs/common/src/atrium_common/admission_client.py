"""Asks the AdmissionService on behalf of callers that speak gRPC directly.

`server.py` opens it, `interceptors/usage.py` uses it; the gateway has its admission in process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

import grpc.aio

from atrium.admission.v1 import admission_pb2 as pb
from atrium.admission.v1.admission_pb2_grpc import AdmissionServiceStub
from atrium_common.channels import open_channel
from atrium_common.domain import Usage
from atrium_common.interceptors.errors import from_rpc_error
from atrium_common.interceptors.metadata import SERVICE
from atrium_common.interceptors.tracing import outgoing_metadata
from atrium_common.service import WorkEstimate
from atrium_common.settings import ServiceSettings
from atrium_common.tls import ClientTls
from atrium_common.wire import duration_from_proto, usage_to_proto


class Outcome(StrEnum):
    """How a request ended, for the ledger."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


_OUTCOMES: Final = {
    Outcome.COMPLETED: pb.OUTCOME_COMPLETED,
    Outcome.CANCELLED: pb.OUTCOME_CANCELLED,
    Outcome.FAILED: pb.OUTCOME_FAILED,
}


@dataclass(frozen=True, slots=True)
class TokenCaller:
    """A caller known by its bearer token, which only admission can read.

    Attributes:
        token: The bearer token.
        address: Address of its connection; ``""`` if that is not known.
        forwarded_for: What proxies before it say, as it came.
    """

    token: str
    address: str = ""
    forwarded_for: str = ""


@dataclass(frozen=True, slots=True)
class TenantCaller:
    """A tenant named by a caller that holds the service credential."""

    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A reservation that admission has made.

    Attributes:
        reservation_id: Names it in the calls that follow.
        tenant: Tenant that pays.
        subject: User or key that asked.
        weight: Share of the tenant in fair scheduling, above 0.
        lease: Time until it is closed as estimated unless renewed.
    """

    reservation_id: str
    tenant: str
    subject: str
    weight: float
    lease: timedelta


class AdmissionClient:
    """The AdmissionService through one channel, in the domain's terms.

    Every method raises the error that the server raised, `Unavailable` if it can't
    be reached and `DeadlineExceeded` if it does not answer within `timeout`.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        service_credential: str,
        timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._stub = AdmissionServiceStub(channel)
        self._metadata = ((SERVICE, service_credential),)
        self._timeout = timeout.total_seconds()

    async def admit(
        self,
        caller: TokenCaller | TenantCaller,
        estimate: WorkEstimate,
        *,
        request_id: str,
        method: str,
    ) -> Grant:
        """Reserves the estimate, or raises what refused it."""
        request = pb.AdmitRequest(
            capability=str(estimate.capability),
            model=estimate.model,
            estimate=usage_to_proto(estimate.usage),
            request_id=request_id,
            method=method,
            other_models=estimate.others,
        )
        if isinstance(caller, TokenCaller):
            request.token = caller.token
            request.peer_address = caller.address
            request.forwarded_for = caller.forwarded_for
        else:
            request.tenant = caller.tenant
        try:
            reply = await self._stub.Admit(
                request, timeout=self._timeout, metadata=self._outgoing()
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return Grant(
            reservation_id=reply.reservation_id,
            tenant=reply.tenant,
            subject=reply.subject,
            weight=reply.weight or 1.0,
            lease=duration_from_proto(reply.lease),
        )

    async def renew(
        self, reservation_id: str, bound: Usage | None = None, *, tenant: str = ""
    ) -> timedelta:
        """Keeps a reservation alive, growing it to `bound` if given; returns the lease.

        Here and below, with `tenant` any gateway can answer, not only the one that admitted.
        """
        request = pb.RenewRequest(reservation_id=reservation_id, tenant=tenant)
        if bound is not None:
            request.estimate.CopyFrom(usage_to_proto(bound))
        try:
            reply = await self._stub.Renew(
                request, timeout=self._timeout, metadata=self._outgoing()
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return duration_from_proto(reply.lease)

    async def settle(
        self,
        reservation_id: str,
        usage: Usage,
        outcome: Outcome,
        by_model: Sequence[Usage] = (),
        *,
        tenant: str = "",
    ) -> None:
        """Charges what was consumed; idempotent.

        Args:
            reservation_id: The reservation.
            usage: What was consumed, in total.
            outcome: How the call ended.
            by_model: The same by model, if several did the work; adds up to `usage`.
            tenant: Whose it is.
        """
        request = pb.SettleRequest(
            reservation_id=reservation_id,
            usage=usage_to_proto(usage),
            outcome=_OUTCOMES[outcome],
            usage_by_model=[usage_to_proto(part) for part in by_model],
            tenant=tenant,
        )
        try:
            await self._stub.Settle(request, timeout=self._timeout, metadata=self._outgoing())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def refund(self, reservation_id: str, reason: str, *, tenant: str = "") -> None:
        """Gives the reservation back uncharged; idempotent."""
        request = pb.RefundRequest(reservation_id=reservation_id, reason=reason, tenant=tenant)
        try:
            await self._stub.Refund(request, timeout=self._timeout, metadata=self._outgoing())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def _outgoing(self) -> tuple[tuple[str, str], ...]:
        return self._metadata + outgoing_metadata()


def open_admission(
    settings: ServiceSettings,
) -> tuple[grpc.aio.Channel | None, AdmissionClient | None]:
    """Opens the way to the admission authority; nothing where the settings name none."""
    if settings.admission_target is None or settings.service_credential is None:
        return None, None
    tls = None
    if settings.admission_tls_ca is not None:
        tls = ClientTls(
            ca=settings.admission_tls_ca,
            certificate=settings.tls_certificate,
            key=settings.tls_key,
        )
    channel = open_channel(settings.admission_target, tls=tls)
    credential = settings.service_credential.get_secret_value()
    return channel, AdmissionClient(channel, service_credential=credential)
