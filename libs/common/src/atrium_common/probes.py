"""HTTP for the machinery around a service: /metrics, /health/live, /health/ready.

A thread of its own with the standard library's WSGI server: it answers when the
event loop does not, and that is what liveness has to tell. Used by `server.py`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from atrium_common.domain import ModelInfo

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_LOOP_SILENCE_SECONDS = 30.0
"""An event loop that has not moved for so long is stuck: models load in threads."""


class Pulse:
    """The event loop's sign of life, read from the probes' threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Says that the loop moves."""
        self._last = self._clock()

    def is_alive(self) -> bool:
        """Says whether the loop has moved lately."""
        return self._clock() - self._last < _LOOP_SILENCE_SECONDS


class Probes:
    """The HTTP server of one process."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        pulse: Pulse,
        ready: Callable[[], bool],
        models: Callable[[], Sequence[ModelInfo]],
    ) -> None:
        """Makes the server.

        Args:
            registry: What /metrics shows.
            pulse: Decides /health/live.
            ready: Decides /health/ready; called in a thread.
            models: Listed by /health/ready; called in a thread.
        """
        self._metrics = make_wsgi_app(registry)
        self._pulse = pulse
        self._ready = ready
        self._models = models
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> int:
        """Listens and returns the port; `OSError` if it is taken."""
        try:
            self._server = _Server((host, port), _Quiet)
        except OSError as error:
            raise OSError(f"can't listen on {host}:{port}: is the port in use?") from error
        self._server.set_app(self._answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Closes the port. Blocks for at most a twentieth of a second."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def _answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/health/live":
            return _send(start_response, self._pulse.is_alive(), {})
        if path == "/health/ready":
            models = [
                {"id": m.id, "state": m.state.value, "verified": m.verified_at is not None}
                for m in self._models()
            ]
            return _send(start_response, self._ready(), {"models": models})
        return _write(start_response, HTTPStatus.NOT_FOUND, {"status": "not found"})


def _send(start_response: "StartResponse", good: bool, body: dict[str, Any]) -> Iterable[bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return _write(start_response, status, {"status": "ok" if good else "unavailable", **body})


def _write(
    start_response: "StartResponse", status: HTTPStatus, body: dict[str, Any]
) -> Iterable[bytes]:
    data = json.dumps(body).encode()
    start_response(
        f"{status.value} {status.phrase}",
        [("Content-Type", "application/json"), ("Content-Length", str(len(data)))],
    )
    return [data]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The parent's would look the host's name up in DNS at each start.
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 5  # seconds that a silent client may hold a thread

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing: a scrape every few seconds is no event."""

    def address_string(self) -> str:
        return str(self.client_address[0])
