"""Fetches and checks the models' files before anything starts; `main.py` calls it.

The work is done by `atrium_common.weights`, in a process of its own: it shows the progress and,
where it fails, the one line that says why.
"""

import asyncio
import sys
from collections.abc import Mapping

from launcher.errors import LaunchError
from launcher.options import Options


async def ensure(options: Options, environment: Mapping[str, str]) -> None:
    """Makes sure that every model of the chosen services is on this machine.

    Raises:
        LaunchError: One is not, and can't be fetched.
    """
    for service in options.services:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atrium_common.weights", "ensure"),
            *("--catalogue", str(options.catalogue)),
            *("--models-dir", str(options.models)),
            *("--service", service),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
        if status != 0:
            raise LaunchError("")  # it has said why
