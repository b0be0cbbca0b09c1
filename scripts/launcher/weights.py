"""Fetches and checks the models' files before anything starts; `main.py` calls it.

The work is done by `atrium_common.weights`, in a process of its own: it shows the progress and,
where it fails, the line that says why.
"""

from collections.abc import Mapping

from launcher.command import run_module
from launcher.errors import LaunchError
from launcher.options import Options


async def ensure(options: Options, environment: Mapping[str, str]) -> None:
    """Makes sure that every model of the chosen services is on this machine.

    Raises:
        LaunchError: One is not, and can't be fetched.
    """
    result = await run_module(
        *("atrium_common.weights", "ensure"),
        *(part for service in options.services for part in ("--service", service)),
        *("--catalogue", str(options.catalogue)),
        *("--models-dir", str(options.models)),
        environment=environment,
        keep_output=False,
    )
    if result.status != 0:
        raise LaunchError("")  # it has said why
