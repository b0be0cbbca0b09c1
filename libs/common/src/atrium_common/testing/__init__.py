"""Ships with the library: a service's tests run it behind the real edge with these."""

from atrium_common.testing.admission import FakeAdmission
from atrium_common.testing.contract import check_service
from atrium_common.testing.service import (
    CREDENTIAL,
    RunningService,
    gateway_metadata,
    running_server,
    service_metadata,
    tenant_metadata,
)

__all__ = [
    "CREDENTIAL",
    "FakeAdmission",
    "RunningService",
    "check_service",
    "gateway_metadata",
    "running_server",
    "service_metadata",
    "tenant_metadata",
]
