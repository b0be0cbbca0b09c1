"""Asks a service what a call has consumed whose one answer did not arrive.

A stream that breaks off has told its usage in its last message; a call with one answer has
told nothing. `llm.py` gives its whole answers the means to ask.
"""

import asyncio
from typing import Final

import grpc.aio

from atrium.common.v1 import usage_pb2, usage_pb2_grpc
from atrium_common.domain import Usage
from atrium_common.errors import AtriumError, NotFound
from atrium_common.wire import usage_from_proto
from atrium_gateway.upstreams.calls import Credentials, unmetered
from atrium_gateway.upstreams.port import Caller

_SECONDS: Final = 10.0
"""For one question: the service waits for the call's end, which takes a step of the model."""
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.2
_REPLICAS: Final = 16
"""Questions at a time when the first replica asked knows nothing of the call: the channel gives
them to its replicas in turn, so that each of up to so many gets one."""


class UsageInquiry:
    """Asks one service, over the channel of its calls."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self._stub = usage_pb2_grpc.UsageServiceStub(channel)
        self._credentials = credentials

    async def consumed(self, caller: Caller) -> Usage | None:
        """What the call of the caller's reservation has consumed, once it has ended.

        Returns:
            ``None`` if it ended before any work, or no replica has heard of it.

        Raises:
            AtriumError: The service can't be asked now.
        """
        for _ in range(_TRIES - 1):
            try:
                return await self._anywhere(caller)
            except AtriumError:
                await asyncio.sleep(_PAUSE_SECONDS)
        return await self._anywhere(caller)

    async def _anywhere(self, caller: Caller) -> Usage | None:
        for at_once in (1, _REPLICAS):
            asked = [self._ask(caller) for _ in range(at_once)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            for answer in answers:
                if isinstance(answer, usage_pb2.GetUsageResponse):
                    told = answer.HasField("consumed")
                    return usage_from_proto(answer.consumed) if told else None
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, NotFound):
                    raise answer
        return None

    async def _ask(self, caller: Caller) -> usage_pb2.GetUsageResponse:
        return await unmetered(
            self._stub.GetUsage(
                usage_pb2.GetUsageRequest(reservation_id=caller.reservation_id),
                metadata=self._credentials.plain(caller.tenant, caller.request_id),
                timeout=_SECONDS,
            )
        )
