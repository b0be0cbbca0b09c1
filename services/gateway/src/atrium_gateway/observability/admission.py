"""Admission that tells how it decides; `core.open_core` makes it for both doors."""

import time
from datetime import timedelta
from functools import cached_property

from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, QuotaExceeded
from atrium_common.telemetry.semantics import ADMISSION, CAPABILITY, REQUEST_MODEL
from atrium_common.telemetry.spans import hop
from atrium_gateway.admission import Admission, Reservation
from atrium_gateway.auth.principal import Principal
from atrium_gateway.observability.budgets import Budgets
from atrium_gateway.observability.decisions import Decisions


class WatchedAdmission(Admission):
    """Decides as `Admission` does, and counts."""

    @cached_property
    def decisions(self) -> Decisions:
        """How it decided."""
        return Decisions()

    @cached_property
    def budgets(self) -> Budgets:
        """What the limits said."""
        return Budgets()

    async def admit(
        self,
        principal: Principal,
        *,
        capability: str,
        model: str,
        estimate: Usage,
        request_id: str,
        method: str,
        lease: timedelta | None = None,
    ) -> Reservation:
        """Reserves, or raises, as `Admission.admit`."""
        started = time.perf_counter()
        try:
            with hop(ADMISSION, {CAPABILITY: capability, REQUEST_MODEL: model}):
                reservation = await super().admit(
                    principal,
                    capability=capability,
                    model=model,
                    estimate=estimate,
                    request_id=request_id,
                    method=method,
                    lease=lease,
                )
        except AtriumError as error:
            self.decisions.refused(error)
            if isinstance(error, QuotaExceeded):
                self.budgets.note(principal.tenant, capability, model, error.violations)
            raise
        finally:
            self.decisions.seconds.observe(time.perf_counter() - started)
        self.decisions.admitted()
        self.budgets.note(principal.tenant, capability, model, reservation.limits)
        return reservation
