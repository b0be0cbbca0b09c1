"""`python -m atrium_gateway.probe`: asks the gateway of this container over HTTP.

The image's HEALTHCHECK calls it for ``/health/live``, and whoever waits for the gateway with
``--ready`` for ``/health/ready``.
"""

import http.client
import sys
from http import HTTPStatus

from atrium_common.probing import ProbeError, Question, local_target, run

PREFIX = "ATRIUM_GATEWAY_"
PORT = "8000"
"""The default of the gateway's settings; a test holds them together."""


def main() -> int:
    """Returns 0 where the gateway is alive (``--ready``: and takes work), else 1."""
    return run(ask)


def ask(question: Question) -> None:
    """Asks once.

    Raises:
        ProbeError: It answers with another status than 200, or with no HTTP.
        OSError: It does not answer.
    """
    target = question.target or local_target(prefix=PREFIX, port=PORT)
    path = "/health/ready" if question.ready else "/health/live"
    connection = http.client.HTTPConnection(target, timeout=question.seconds)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        status = connection.getresponse().status
    except http.client.HTTPException as err:
        raise ProbeError(f"{target} answers no HTTP: {err!r}") from err
    except OSError as err:
        raise ProbeError(f"{target} does not answer: {err}") from err
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        raise ProbeError(f"{target}{path} answers {status}")


if __name__ == "__main__":
    sys.exit(main())
