"""Admits and settles the calls of those who do not come through the gateway.

`edge.py` asks `UsageGate` before a call runs and gives each message to the `Meter`
that it returns; the meter settles exactly once, however the call ends.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from atrium_common.admission_client import AdmissionClient, Grant, TenantCaller, TokenCaller
from atrium_common.domain import Capability, Usage
from atrium_common.errors import InvalidArgument, QuotaExceeded, Unavailable
from atrium_common.interceptors.auth import Caller
from atrium_common.interceptors.metadata import TENANT
from atrium_common.interceptors.meter import Interrupt, Meter
from atrium_common.interceptors.settlements import Settlements
from atrium_common.service import WorkEstimate

Estimate = Callable[[str, Message], WorkEstimate | None]

_IDENTITY_SECONDS = 1.0
"""A revoked key must be refused within a second."""

_IDENTITIES = 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token belongs to, as admission said."""

    tenant: str
    subject: str
    weight: float


class UsageGate:
    """Decides for each call whether it may run and who pays."""

    def __init__(
        self,
        *,
        admission: AdmissionClient | None,
        estimate: Estimate,
        probe: Callable[[], WorkEstimate | None],
        settlements: Settlements,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the gate of one server.

        Args:
            admission: The authority; without it only calls that bring a reservation,
                and the suite's unmetered ones, may run.
            estimate: The servicer's bound for a request.
            probe: The smallest work of this service; used to ask whose a token is
                when the call itself costs nothing.
            settlements: Runs what must outlive a call.
            clock: Monotonic seconds.
        """
        self._admission = admission
        self._estimate = estimate
        self._probe = probe
        self._settlements = settlements
        self._clock = clock
        self._identities: OrderedDict[tuple[str, str, str], tuple[float, Identity]] = OrderedDict()

    async def admit(
        self,
        caller: Caller,
        request: Message | None,
        *,
        method: str,
        request_id: str,
        interrupt: Interrupt,
    ) -> Meter | Identity | None:
        """Lets a call pass or raises what refuses it.

        Returns:
            The meter of a call that pays here; the identity of a tenant's call that
            costs nothing; ``None`` for the suite's own calls.
        """
        if caller.reservation_id is not None:
            if not caller.tenant:
                raise InvalidArgument(f"A reservation needs {TENANT}.", field=TENANT)
            return None
        estimate = self._estimate(method, request) if request is not None else None
        if estimate is None:
            return None if caller.trusted else await self._identify(caller, method, request_id)
        grant = await self._reserve(caller, estimate, method, request_id)
        assert self._admission is not None  # noqa: S101 - _reserve refuses without it
        return Meter(
            self._admission,
            grant,
            estimate,
            settlements=self._settlements,
            interrupt=interrupt,
            clock=self._clock,
        )

    async def _reserve(
        self, caller: Caller, estimate: WorkEstimate, method: str, request_id: str
    ) -> Grant:
        admission = self._admission
        if admission is None:
            raise Unavailable("This service has no admission authority, so it serves no tenant.")
        if caller.token is not None:
            who: TokenCaller | TenantCaller = TokenCaller(
                caller.token, caller.address, caller.forwarded_for
            )
        elif caller.tenant:
            who = TenantCaller(caller.tenant)
        else:
            raise InvalidArgument(f"The service credential needs {TENANT} here.", field=TENANT)
        asking = asyncio.ensure_future(
            admission.admit(who, estimate, request_id=request_id, method=method)
        )
        try:
            # The caller may leave while admission reserves: the answer still has to be
            # read, or the lease would expire and charge for work that was never done.
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._settlements.start(self._abandon(admission, asking))
            raise

    async def _abandon(self, admission: AdmissionClient, asking: "asyncio.Future[Grant]") -> None:
        await asyncio.wait({asking})
        if asking.cancelled() or asking.exception() is not None:
            return
        await self._refund(admission, asking.result())

    async def _refund(self, admission: AdmissionClient, grant: Grant) -> None:
        await self._settlements.close(
            lambda: admission.refund(grant.reservation_id, "CANCELLED", tenant=grant.tenant),
            reservation_id=grant.reservation_id,
            result="refunded",
            until=self._clock() + grant.lease.total_seconds(),
        )

    async def _identify(self, caller: Caller, method: str, request_id: str) -> Identity:
        """Asks admission whose a token is by a reservation that is given back at once."""
        # A key may hold from one network and not from another.
        origin = (caller.token or "", caller.address, caller.forwarded_for)
        known = self._identities.get(origin)
        if known is not None and known[0] > self._clock():
            return known[1]
        probe = self._probe()
        if probe is None:
            raise Unavailable("The service has no model yet.")
        try:
            grant = await self._reserve(caller, probe, method, request_id)
        except QuotaExceeded:
            # The token was read before the limit refused, and this call costs nothing.
            return Identity(tenant="", subject="", weight=1.0)
        assert self._admission is not None  # noqa: S101 - _reserve refuses without it
        self._settlements.start(self._refund(self._admission, grant))
        identity = Identity(grant.tenant, grant.subject, grant.weight)
        self._identities[origin] = (self._clock() + _IDENTITY_SECONDS, identity)
        while len(self._identities) > _IDENTITIES:
            self._identities.popitem(last=False)
        return identity


def smallest_work(capabilities: Sequence[Capability], model: str | None) -> WorkEstimate | None:
    """Returns an estimate of nothing but one request for a service's first model."""
    if not capabilities or model is None:
        return None
    return WorkEstimate(capability=capabilities[0], model=model, usage=Usage(model=model))
