"""A file as the whole answer, sent while it is made: speech, and documents that were read."""

from collections.abc import Mapping
from types import TracebackType

import structlog

from atrium_common.errors import AtriumError, Unavailable
from atrium_gateway.api.exchange import Exchange

logger = structlog.get_logger(__name__)

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class FileBody:
    """A file that leaves while it is made.

    Used as a context manager: an error before the first byte leaves the block, so that it
    becomes an HTTP status. A later one leaves it as well, after it is logged: the answer
    is never completed, the server closes the connection in its midst, and no client takes
    what it has for the whole file.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.is_open = False

    async def open(self, *, content_type: str, headers: Mapping[str, str]) -> None:
        """Sends status and headers; the first piece follows at once."""
        self.is_open = True
        await self._exchange.start(content_type=content_type, headers={**_HEADERS, **headers})

    async def send(self, piece: bytes) -> None:
        """Sends the next piece at once; waits while the client reads slowly."""
        await self._exchange.write(piece)

    async def close(self) -> None:
        """Completes the answer.

        Raises:
            Unavailable: Nothing was sent.
        """
        if not self.is_open:
            raise Unavailable("The service gave no answer.")
        await self._exchange.write(b"", last=True)

    async def __aenter__(self) -> "FileBody":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.is_open or not isinstance(error, Exception):
            return
        request_id = self._exchange.record.request_id
        if isinstance(error, AtriumError):
            logger.warning("answer broke off", request_id=request_id, reason=error.reason)
        else:
            logger.error("unhandled exception", request_id=request_id, exc_info=error)
