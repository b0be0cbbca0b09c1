"""One suite with real models for all end-to-end tests: `make run` with the starter catalogue."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.kit.suite import Suite, running_suite


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """The running suite; its models are loaded once for all tests."""
    with running_suite(tmp_path_factory.mktemp("e2e") / "state") as running:
        yield running


@pytest.fixture
def tenant(suite: Suite) -> str:
    """A tenant of this test's own, so that its usage is nobody else's."""
    name = "t-" + uuid.uuid4().hex[:12]
    suite.atrium("tenant", "create", name)
    return name


@pytest.fixture
def key(suite: Suite, tenant: str) -> str:
    """An API key of the test's tenant."""
    return str(json.loads(suite.atrium("key", "create", tenant, "--json"))["key"])


@pytest_asyncio.fixture
async def client(suite: Suite, key: str) -> AsyncIterator[AsyncOpenAI]:
    """The official client, as the test's tenant."""
    async with AsyncOpenAI(base_url=f"{suite.url}/v1", api_key=key, max_retries=0) as official:
        yield official


@pytest_asyncio.fixture
async def rest(suite: Suite, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client, as the test's tenant."""
    async with httpx.AsyncClient(
        base_url=suite.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as plain:
        yield plain
