"""The contract check passes for a good service and names what a bad one breaks."""

import pytest

from atrium_common.testing import check_service, running_server
from atrium_common.testing.echo import SERVICE_NAME, EchoEngine, EchoServicer

MODEL_SERVICE = "atrium.common.v1.ModelService"


async def test_a_good_service_passes() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        await check_service(channel, MODEL_SERVICE)


async def test_a_service_that_is_not_served_is_named() -> None:
    async with running_server(EchoServicer(), EchoEngine()) as (channel, _):
        with pytest.raises(Exception, match="no such service"):
            await check_service(channel, "atrium.llm.v1.TextGenerationService")


async def test_models_without_capabilities_are_named() -> None:
    class Vague(EchoEngine):
        def models(self):
            return ()

    async with running_server(EchoServicer(), Vague()) as (channel, _):
        with pytest.raises(AssertionError, match="at least one model"):
            await check_service(channel, SERVICE_NAME)
