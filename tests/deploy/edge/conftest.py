"""One gateway over fake services, behind one edge, for all tests of the edge."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kit.edge import Authority, running_edge
from tests.kit.edge_stack import PAGE, UPLOAD_BYTES, Running
from tests.kit.fakes import running_fakes
from tests.kit.stack import running_stack
from tests.kit.tenancy import make_tenant


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="package")
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def running(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, trusting: ssl.SSLContext
) -> AsyncIterator[Running]:
    folder: Path = tmp_path_factory.mktemp("edge")
    environment = {
        "ATRIUM_GATEWAY_TRUSTED_PROXIES": '["127.0.0.0/8"]',
        "ATRIUM_GATEWAY_LOG_LEVEL": "info",
        "ATRIUM_GATEWAY_CORS_ORIGINS": f'["{PAGE}"]',
    }
    async with AsyncExitStack() as stack:
        made = stack.enter_context(running_stack(folder, environment=environment, started=False))
        fakes = running_fakes(folder, admission_target=made.authority, ports=made.service_ports)
        services = await stack.enter_async_context(fakes)
        (gateway,) = made.gateways
        await asyncio.to_thread(gateway.start)
        limits = [("requests", "concurrent", 1)]
        key = await asyncio.to_thread(make_tenant, made.environments[0], "edge", limits)
        edge = running_edge(
            authority,
            gateway=gateway.url.removeprefix("http://"),
            max_upload_bytes=str(UPLOAD_BYTES),
            reload_seconds="0.1",
            upper_proxies="127.0.0.1",
        )
        yield Running(made, services, stack.enter_context(edge), trusting, key)
