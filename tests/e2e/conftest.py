"""One suite with real models for all end-to-end tests: `make run` with the starter catalogue.

It ends with the last of them: it is large, and other tests follow in the same process.
"""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from atrium_diffusion.testing.shapes import PLAIN_SCENES
from tests.kit.suite import Suite, running_suite


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def plain_pictures_key(suite: Suite) -> str:
    """An API key of the tenant that has `plain_pictures` drawn, and nothing else."""
    made = suite.atrium("key", "create", "painter", "--unlimited-tenant", "--json")
    return str(json.loads(made)["key"])


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def plain_pictures(suite: Suite, plain_pictures_key: str) -> Mapping[str, bytes]:
    """The sixty plain prompts and their pictures, PNG, drawn once for all tests."""

    async def drawn(prompt: str, seed: int) -> bytes:
        answer = await painter.images.generate(
            model="sdxl-shapes-128", prompt=prompt, extra_body={"seed": seed}
        )
        assert answer.data is not None
        return base64.b64decode(answer.data[0].b64_json or "")

    async with AsyncOpenAI(
        base_url=f"{suite.url}/v1", api_key=plain_pictures_key, max_retries=0
    ) as painter:
        seeds = range(1000, 1000 + len(PLAIN_SCENES))
        pictures = await asyncio.gather(*map(drawn, PLAIN_SCENES, seeds))
    return dict(zip(PLAIN_SCENES, pictures, strict=True))
