"""Runs a package manager that downloads into a folder, and tells how the folder grows.

Package managers themselves show progress to people only. `pip.py` and `npm.py` call this.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from atrium_common.weights.staging import size_under

_POLL_SECONDS = 0.2


def download(
    command: Sequence[str],
    folder: Path,
    *,
    fetched: Callable[[int], None],
    environment: Mapping[str, str],
) -> tuple[int, str]:
    """Runs `command` and waits for it.

    Args:
        command: The program and its arguments.
        folder: Where everything that it downloads goes, temporary files too.
        fetched: Called with the bytes by which the folder grew since the last call.
        environment: Variables beside those of this process.

    Returns:
        The exit status, and everything the program said.
    """
    seen = 0
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(  # noqa: S603  # a package manager, with names of the catalogue
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder), **environment},
        ) as process,
    ):
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                size = size_under(folder)
                if size > seen:
                    fetched(size - seen)
                    seen = size
        except BaseException:
            process.kill()
            raise
        output.seek(0)
        said = output.read().decode(errors="replace")
    fetched(max(0, size_under(folder) - seen))
    return process.returncode, said
