"""The development tenant and its key, made by the `atrium` command; `main.py` calls it.

The tenant has no limits: newcomers and benchmarks use it. Its key is kept in `dev.key`. The
command makes the database where there is none.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from launcher import preflight
from launcher.command import run_module
from launcher.errors import LaunchError
from launcher.probe import status_of

TENANT = "dev"
KEY_FILE = "dev.key"
_UNAUTHORIZED = (401, 403)


async def development_key(state: Path, environment: Mapping[str, str]) -> str:
    """The kept key, or a new one; the database is made where there is none.

    Raises:
        LaunchError: The database can't be written or upgraded.
    """
    path = state / KEY_FILE
    if path.exists():
        return path.read_text().strip()
    return await _new_key(state, environment)


async def confirmed_key(
    key: str, state: Path, environment: Mapping[str, str], *, address: str
) -> str:
    """Returns `key` if the running gateway takes it, else a new one (its database is new)."""
    status = await asyncio.to_thread(status_of, f"{address}/v1/models", token=key)
    if status in _UNAUTHORIZED:
        return await _new_key(state, environment)
    return key


async def _new_key(state: Path, environment: Mapping[str, str]) -> str:
    key = await _atrium("key", "create", TENANT, "--unlimited-tenant", environment=environment)
    preflight.write_secret(state / KEY_FILE, key)
    return key


async def _atrium(*arguments: str, environment: Mapping[str, str]) -> str:
    """Runs the administration command; returns what it wrote."""
    result = await run_module(
        "atrium_gateway.cli", *arguments, environment=environment, keep_output=True
    )
    if result.status != 0:
        last = result.errors.rpartition("\n")[2] or f"exit status {result.status}"
        raise LaunchError(f"`atrium {' '.join(arguments[:2])}` failed: {last}")
    return result.output
