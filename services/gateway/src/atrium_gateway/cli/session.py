"""What every command needs: settings from the environment, and the database for a moment."""

import asyncio
import getpass
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from atrium_common.errors import InvalidArgument
from atrium_gateway.administration.desk import Administration
from atrium_gateway.audit.domain import Actor
from atrium_gateway.core import administration_desk, open_tenants
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.repository import TenantRepository

T = TypeVar("T")

_TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def with_tenants(work: Callable[[TenantRepository], Awaitable[T]]) -> T:
    """Runs `work` with the repository of the configured, upgraded database; changes are audited."""
    return with_administration(lambda desk: work(desk.tenants(operator(), scope=None)))


def with_administration(work: Callable[[Administration], Awaitable[T]]) -> T:
    """Runs `work` with what administers the configured, upgraded database."""
    settings = GatewaySettings()

    async def run() -> T:
        async with open_tenants(settings) as (_, engine):
            return await work(
                administration_desk(engine, settings, clock=time.time, flush=_nothing)
            )

    return asyncio.run(run())


def operator() -> Actor:
    """Who runs the command, by the account of the machine."""
    try:
        account = getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as containers have
        account = str(os.getuid())
    return Actor(subject=f"cli:{account}"[:200])


def with_engine(work: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Runs `work` with the configured, upgraded database."""

    async def run() -> T:
        async with open_tenants(GatewaySettings()) as (_, engine):
            return await work(engine)

    return asyncio.run(run())


def check_tenant_id(text: str) -> str:
    """Returns `text` if it can name a tenant.

    Raises:
        InvalidArgument: It is not 1-64 of ``a-z 0-9 - _``, the first a letter or digit.
    """
    if not _TENANT_ID.fullmatch(text):
        raise InvalidArgument(
            f"{text!r} is no tenant id: 1 to 64 of a-z, 0-9, - and _, starting with a letter "
            "or a digit.",
            field="tenant",
        )
    return text


async def _nothing() -> None:
    """The spool belongs to the gateway's process; it writes it out itself."""
