"""Runs a short command of the suite to its end; `weights.py` and `identity.py` use it."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.child import die_with_parent


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended.

    Attributes:
        status: Exit status, -N for signal N.
        output: What it wrote to standard output, if that was kept.
        errors: What it wrote to standard error, if that was kept.
    """

    status: int
    output: str
    errors: str


async def run_module(
    module: str, *arguments: str, environment: Mapping[str, str], keep_output: bool
) -> Result:
    """Runs ``python -m module arguments``; cancelled, it ends the command first.

    Args:
        module: Module with a command line.
        arguments: Its arguments.
        environment: Its whole environment.
        keep_output: Keep what it writes; otherwise it writes to the terminal.
    """
    stream = subprocess.PIPE if keep_output else None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=stream,
        preexec_fn=die_with_parent,
    )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    status = process.returncode
    return Result(
        status=-1 if status is None else status,
        output=(output or b"").decode(errors="replace").strip(),
        errors=(errors or b"").decode(errors="replace").strip(),
    )
