"""What the two probe programs share: variables, arguments, one line and an exit status.

`atrium_common.probe` and `atrium_gateway.probe` use it. A probe is started anew every few
seconds, so neither reads the settings classes: importing pydantic alone takes longer than
asking the service.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHARED_PREFIX = "ATRIUM_"
"""As in `atrium_common.settings`."""
LOOPBACKS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104
"""Where a server is asked that listens on every address."""


class ProbeError(Exception):
    """The service is not as asked; the text says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a probe is to find out.

    Attributes:
        ready: Whether the service takes work; otherwise only whether it answers.
        target: ``host:port`` to ask; ``None`` for the one in the variables.
        seconds: How long the answer may take.
    """

    ready: bool
    target: str | None
    seconds: float


def variable(field: str, *, prefix: str, default: str = "") -> str:
    """Returns the variable of a settings field: under `prefix`, else under the shared one."""
    for start in (prefix, SHARED_PREFIX):
        if value := os.environ.get(start + field.upper()):
            return value
    return default


def local_target(*, prefix: str, port: str) -> str:
    """Returns ``host:port`` of the server in this container; `port` where no variable says one."""
    host = variable("host", prefix=prefix)
    return f"{LOOPBACKS.get(host, host)}:{variable('port', prefix=prefix, default=port)}"


def run(check: Callable[[Question], None], arguments: Sequence[str] | None = None) -> int:
    """Runs a probe's command line; returns its exit status, 0 or 1.

    Args:
        check: Asks the service; raises `ProbeError` or `OSError` where it is not well.
        arguments: The command line; ``None`` for the process's own.
    """
    parser = argparse.ArgumentParser(description="Asks the service of this container how it is.")
    parser.add_argument("--ready", action="store_true", help="ask whether it takes work, too")
    parser.add_argument("--target", help="host:port to ask, instead of what the variables say")
    parser.add_argument("--seconds", type=float, default=3.0, help="longest wait (default: 3)")
    options = parser.parse_args(arguments)
    try:
        check(Question(ready=options.ready, target=options.target, seconds=options.seconds))
    except (ProbeError, OSError, ValueError) as err:
        sys.stderr.write(f"probe: {' '.join(str(err).split())}\n")
        return 1
    return 0
