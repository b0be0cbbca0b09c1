"""`atrium.common.v1.UsageService` over the edge's accounts; `server.py` serves it everywhere."""

import grpc.aio

from atrium.common.v1 import usage_pb2 as pb
from atrium.common.v1 import usage_pb2_grpc
from atrium_common.errors import InvalidArgument, NotFound
from atrium_common.interceptors.accounts import Accounts
from atrium_common.service import Context

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["UsageService"].full_name
SUITE_ONLY = frozenset({f"/{SERVICE_NAME}/GetUsage"})


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """Tells what calls have consumed."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to `server`."""
        usage_pb2_grpc.add_UsageServiceServicer_to_server(self, server)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Waits for the end of a reservation's call and tells what it has consumed."""
        del context
        if not request.reservation_id:
            raise InvalidArgument("Name a reservation.", field="reservation_id")
        account = self._accounts.find(request.reservation_id)
        if account is None:
            raise NotFound("No call of this reservation is known here.", field="reservation_id")
        await account.ended()
        return pb.GetUsageResponse(consumed=account.usage, consumed_by_model=account.usage_by_model)
