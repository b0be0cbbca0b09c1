"""What the tests of the core share: settings over a fresh folder, a core, tenants, a clock."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atrium_common.catalogue import Catalogue
from atrium_common.domain import Usage
from atrium_gateway.auth.principal import Principal
from atrium_gateway.core import Core, open_core
from atrium_gateway.quota.limits import Limit
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.domain import Tenant

NOON = datetime(2026, 3, 14, 12, 30, tzinfo=UTC)


class Clock:
    """Unix seconds that move only when told to."""

    def __init__(self, start: datetime = NOON) -> None:
        self.now = start.timestamp()

    def __call__(self) -> float:
        return self.now

    def advance(self, span: timedelta) -> None:
        self.now += span.total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.model_validate(
        {
            "models": [
                {
                    "id": "m",
                    "service": "llm",
                    "capabilities": ["chat"],
                    "engine": "fake",
                    "price": {"million_input_tokens": "0.15", "million_output_tokens": "0.6"},
                }
            ]
        }
    )


@pytest.fixture
def settings(tmp_path: Path, upgraded_sqlite: Path) -> GatewaySettings:
    """Of a gateway whose database is empty, at the newest revision."""
    shutil.copy(upgraded_sqlite, tmp_path)
    return GatewaySettings(
        state_dir=tmp_path,
        service_credential="a service credential",
        admission_port=0,
        writer_interval_seconds=0.05,
    )


@pytest.fixture
async def core(
    settings: GatewaySettings, catalogue: Catalogue, clock: Clock
) -> AsyncIterator[Core]:
    async with open_core(settings, catalogue=catalogue, clock=clock) as opened:
        yield opened


@pytest.fixture
def make_tenant(core: Core) -> Callable[..., Awaitable[Principal]]:
    """Creates a tenant and returns a principal of it."""

    async def make(
        tenant: str = "acme", *limits: Limit, unlimited: bool = False, blocked: bool = False
    ) -> Principal:
        await core.tenants.create_tenant(tenant_record(tenant, *limits, unlimited=unlimited))
        if blocked:
            await core.tenants.set_blocked(tenant, blocked=True)
        return Principal(tenant=tenant, subject="user")

    return make


def tenant_record(tenant: str, *limits: Limit, unlimited: bool = False) -> Tenant:
    return Tenant(
        id=tenant,
        name=tenant,
        blocked=False,
        unlimited=unlimited,
        weight=1.0,
        limits=limits,
        created_at=NOON,
    )


@pytest.fixture
def admit(core: Core) -> Callable[..., Awaitable[object]]:
    async def run(principal: Principal, *, estimate: Usage | None = None, capability: str = "chat"):
        return await core.admission.admit(
            principal,
            capability=capability,
            model="m",
            estimate=estimate or Usage(input_tokens=100, output_tokens=50),
            request_id="r",
            method="POST /v1/chat/completions",
        )

    return run
