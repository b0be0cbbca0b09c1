"""Tenants, keys and the ledger of a running stack: made by the `atrium` command, read in SQL."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from atrium_gateway.cli.app import app
from atrium_gateway.usage.tables import usage_events, usage_hourly

Row = dict[str, Any]
Limits = Sequence[tuple[str, str, int]]
"""Unit, window and amount of limits over all capabilities together."""


def atrium(environment: Mapping[str, str], *arguments: str) -> str:
    """Runs the `atrium` command; returns what it printed.

    In this process, for a new one takes seconds to import it; in a thread, for it brings an
    event loop of its own.
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(CliRunner().invoke, app, arguments, env=dict(environment)).result()
    if done.exit_code != 0:
        raise RuntimeError(f"atrium {' '.join(arguments)}: {done.output}") from done.exception
    return done.stdout


def make_tenant(environment: Mapping[str, str], tenant: str, limits: Limits = ()) -> str:
    """Makes a tenant, without any limit if none is given; returns a key of it."""
    atrium(environment, "tenant", "create", tenant, *([] if limits else ["--unlimited"]))
    for unit, window, amount in limits:
        what = ("--unit", unit, "--window", window, "--amount", str(amount))
        atrium(environment, "tenant", "limit", tenant, *what)
    made: str = json.loads(atrium(environment, "key", "create", tenant, "--json"))["key"]
    return made


async def events_of(engine: AsyncEngine, tenant: str) -> list[Row]:
    """All events of a tenant."""
    return await _rows(engine, usage_events, tenant)


async def hours_of(engine: AsyncEngine, tenant: str) -> list[Row]:
    """All roll-ups of a tenant."""
    return await _rows(engine, usage_hourly, tenant)


async def _rows(engine: AsyncEngine, table: Table, tenant: str) -> list[Row]:
    query = select(table).where(table.c.tenant == tenant)
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(query)).mappings()]
