"""The gRPC face of admission, for services whose callers come without the gateway.

Converts and checks; `admission.py` decides. `admission_server.py` serves it to holders
of the suite's service credential.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import grpc.aio
from google.protobuf.message import Message

from atrium.admission.v1 import admission_pb2 as pb
from atrium.admission.v1 import admission_pb2_grpc
from atrium_common.context import current_context
from atrium_common.domain import Capability
from atrium_common.errors import InvalidArgument, Unavailable
from atrium_common.service import Context, WorkEstimate
from atrium_common.wire import (
    duration_to_proto,
    timestamp_to_proto,
    usage_from_proto,
)
from atrium_gateway.admission import Admission, LimitState, Outcome
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.networks import Network, client_address
from atrium_gateway.auth.principal import Principal

SERVICE_NAME = "atrium.admission.v1.AdmissionService"

_MAX_TEXT = 200
_MAX_REQUEST_ID = 128
_MAX_REASON = 64
_MAX_FORWARDED = 2048
_MAX_COUNT = 2**53
_MAX_MODELS = 64
_CAPABILITIES = frozenset(str(capability) for capability in Capability)
_OUTCOMES = {
    pb.OUTCOME_COMPLETED: Outcome.COMPLETED,
    pb.OUTCOME_CANCELLED: Outcome.CANCELLED,
    pb.OUTCOME_FAILED: Outcome.FAILED,
}


class AdmissionServicer(admission_pb2_grpc.AdmissionServiceServicer):
    """Serves `AdmissionService` from the gateway's own admission.

    Args:
        authenticator: Reads the tokens of tenants.
        admission: Reserves and settles.
        noted: Returns when every reservation made so far is on disk.
        trusted_proxies: Networks of proxies in front of the services.
    """

    service_name = SERVICE_NAME

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        admission: Admission,
        noted: Callable[[], Awaitable[None]],
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self._authenticator = authenticator
        self._admission = admission
        self._noted = noted
        self._trusted_proxies = trusted_proxies

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers to `server`."""
        admission_pb2_grpc.add_AdmissionServiceServicer_to_server(self, server)

    def estimate(self, method: str, request: Message) -> WorkEstimate | None:
        """Admission itself is not metered."""
        return None

    async def Admit(self, request: pb.AdmitRequest, context: Context) -> pb.AdmitResponse:
        """Reserves for a tenant's caller."""
        if request.capability not in _CAPABILITIES:
            raise InvalidArgument("capability is not known.", field="capability")
        _check_text("model", request.model, _MAX_TEXT, required=True)
        _check_text("method", request.method, _MAX_TEXT)
        _check_text("request_id", request.request_id, _MAX_REQUEST_ID)
        if len(request.other_models) > _MAX_MODELS:
            raise InvalidArgument(f"More than {_MAX_MODELS} models.", field="other_models")
        _check_text("peer_address", request.peer_address, _MAX_TEXT)
        _check_text("forwarded_for", request.forwarded_for, _MAX_FORWARDED)
        _check_usage("estimate", request.estimate)
        principal = await self._principal(request)
        for model in request.other_models:
            principal.demand_model(model)
        reservation = await self._admission.admit(
            principal,
            capability=request.capability,
            model=request.model,
            estimate=usage_from_proto(request.estimate),
            request_id=request.request_id or current_context().request_id,
            method=request.method,
        )
        try:
            # Unlike the gateway's own requests this one is answered by a process that outlives
            # ours: what it was granted must be known to whoever comes after us.
            await self._noted()
        except Unavailable as err:
            with suppress(Unavailable):  # the record is kept and tried again
                await self._admission.refund(reservation.id, err.reason)
            raise
        return pb.AdmitResponse(
            reservation_id=reservation.id,
            tenant=principal.tenant,
            weight=principal.weight,
            lease=duration_to_proto(reservation.lease),
            limits=[_limit(state) for state in reservation.limits],
            subject=principal.subject,
        )

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        """Keeps a reservation alive and grows it."""
        _check_text("reservation_id", request.reservation_id, _MAX_TEXT, required=True)
        _check_text("tenant", request.tenant, _MAX_TEXT)
        estimate = None
        if request.HasField("estimate"):
            _check_usage("estimate", request.estimate)
            estimate = usage_from_proto(request.estimate)
        lease = await self._admission.renew(request.reservation_id, estimate, tenant=request.tenant)
        if estimate is not None:
            await self._noted()
        return pb.RenewResponse(lease=duration_to_proto(lease))

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        """Charges what was consumed; answers when the record is on disk."""
        _check_text("reservation_id", request.reservation_id, _MAX_TEXT, required=True)
        _check_text("tenant", request.tenant, _MAX_TEXT)
        outcome = _OUTCOMES.get(request.outcome)
        if outcome is None:
            raise InvalidArgument("outcome must be stated.", field="outcome")
        if not request.HasField("usage"):
            raise InvalidArgument("usage must be stated.", field="usage")
        _check_usage("usage", request.usage)
        if len(request.usage_by_model) > _MAX_MODELS:
            raise InvalidArgument(f"More than {_MAX_MODELS} models.", field="usage_by_model")
        for index, part in enumerate(request.usage_by_model):
            _check_usage(f"usage_by_model[{index}]", part)
        await self._admission.settle(
            request.reservation_id,
            usage_from_proto(request.usage),
            outcome,
            [usage_from_proto(part) for part in request.usage_by_model],
            tenant=request.tenant,
        )
        return pb.SettleResponse()

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResponse:
        """Gives a reservation back."""
        _check_text("reservation_id", request.reservation_id, _MAX_TEXT, required=True)
        _check_text("tenant", request.tenant, _MAX_TEXT)
        _check_text("reason", request.reason, _MAX_REASON)
        await self._admission.refund(request.reservation_id, request.reason, tenant=request.tenant)
        return pb.RefundResponse()

    async def _principal(self, request: pb.AdmitRequest) -> Principal:
        caller = request.WhichOneof("caller")
        if caller == "token":
            address = client_address(
                request.peer_address, request.forwarded_for, self._trusted_proxies
            )
            return await self._authenticator.authenticate(request.token, address=address)
        if caller == "tenant":
            _check_text("tenant", request.tenant, _MAX_TEXT, required=True)
            return await self._authenticator.tenant_principal(request.tenant)
        raise InvalidArgument("token or tenant must be stated.", field="caller")


def _limit(state: LimitState) -> pb.LimitState:
    return pb.LimitState(
        unit=state.unit,
        window=duration_to_proto(state.window),
        limit=state.limit,
        remaining=state.remaining,
        reset_time=timestamp_to_proto(state.reset_time),
    )


def _check_text(field: str, text: str, longest: int, *, required: bool = False) -> None:
    if required and not text:
        raise InvalidArgument(f"{field} must be stated.", field=field)
    if len(text) > longest:
        raise InvalidArgument(f"{field} has more than {longest} characters.", field=field)


def _check_usage(field: str, usage: Message) -> None:
    """Refuses negative or absurd counts: they would give quota back or break the sums."""
    for part, value in usage.ListFields():
        path = f"{field}.{part.name}"
        if isinstance(value, str):
            _check_text(path, value, _MAX_TEXT)
        elif isinstance(value, int):
            amount = value
            if not 0 <= amount <= _MAX_COUNT:
                raise InvalidArgument(f"{path} is out of range.", field=path)
        elif not (0 <= value.seconds <= _MAX_COUNT // 1000 and value.nanos >= 0):
            raise InvalidArgument(f"{path} is out of range.", field=path)
