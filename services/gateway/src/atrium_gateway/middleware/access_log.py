"""One line per request, written in batches: a log call each would cost too much."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import BinaryIO

import msgspec

FLUSH_SECONDS = 0.1
"""A line waits at most this long."""
FLUSH_LINES = 1000
"""So many waiting lines are written at once, without waiting for the time."""


class AccessLine(msgspec.Struct, gc=False, kw_only=True):
    """What is told of a request; no query string, body, header or credential."""

    request_id: str
    method: str
    path: str
    status: int
    seconds: float
    client: str
    tenant: str
    model: str
    event: str = "request"
    level: str = "info"
    service: str = "gateway"
    timestamp: datetime | None = None
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    trace_id: str | msgspec.UnsetType = msgspec.UNSET
    span_id: str | msgspec.UnsetType = msgspec.UNSET


class AccessLog:
    """Gathers lines and writes them to one stream."""

    def __init__(
        self,
        out: BinaryIO | None,
        *,
        console: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Begins with nothing gathered.

        Args:
            out: Where lines go, e.g. `sys.stdout.buffer`; ``None`` drops them.
            console: Writes for a person, and nothing of probes that went well.
            now: Seconds since the epoch.
        """
        self._out = out
        self._now = now
        self._append = self._append_text if console else self._append_json
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._lines = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: AccessLine) -> None:
        """Takes a line; it is on the stream within `FLUSH_SECONDS`."""
        if self._out is None:
            return
        line.timestamp = datetime.fromtimestamp(self._now(), UTC)
        self._append(line)
        self._lines += 1
        if self._lines >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def _append_json(self, line: AccessLine) -> None:
        self._encoder.encode_into(line, self._buffer, len(self._buffer))
        self._buffer += b"\n"

    def _append_text(self, line: AccessLine) -> None:
        if line.path.startswith("/health") and line.status == HTTPStatus.OK:
            return
        who = " ".join(part for part in (line.tenant, line.model, line.request_id) if part)
        path = line.path.encode("unicode_escape").decode()  # a client chose it
        text = f"{line.method} {path} {line.status} {1000 * line.seconds:.0f} ms {who}\n"
        self._buffer += f"{line.timestamp:%Y-%m-%d %H:%M:%S} {text}".encode()

    def flush(self) -> None:
        """Writes what is waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._out is not None and self._buffer:
            self._out.write(self._buffer)
            self._out.flush()
        self._buffer.clear()
        self._lines = 0
