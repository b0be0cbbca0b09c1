"""Who calls, composed: keys, tokens and what is told of their use. `core.py` enters it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from atrium_common.catalogue import Catalogue
from atrium_gateway.auth.authenticator import Authenticator
from atrium_gateway.auth.documents import DocumentFetcher
from atrium_gateway.auth.issuers import TokenIssuers
from atrium_gateway.auth.key_uses import KeyUses
from atrium_gateway.auth.tokens import TokenAuthority
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.repository import TenantRepository


@asynccontextmanager
async def open_identity(
    settings: GatewaySettings,
    *,
    tenants: TenantRepository,
    directory: Directory,
    tokens: TokenAuthority,
    catalogue: Catalogue,
    clock: Callable[[], float],
) -> AsyncIterator[Authenticator]:
    """Opens what reads credentials; on leaving, writes when keys were last used.

    Args:
        settings: Settings of the gateway.
        tenants: Takes the uses of keys.
        directory: Knows keys and tenants.
        tokens: Checks the gateway's own tokens.
        catalogue: Knows the ids behind aliases.
        clock: Returns Unix seconds.
    """
    uses = KeyUses(tenants.note_uses, clock=clock)
    issuers = None
    if settings.oidc_issuers:
        issuers = TokenIssuers(
            settings.oidc_issuers, fetch=DocumentFetcher(), clock=clock, monotonic=time.monotonic
        )
    async with uses.writing(), AsyncExitStack() as stack:
        if issuers is not None:
            stack.push_async_callback(issuers.close)
        yield Authenticator(
            directory=directory,
            tokens=tokens,
            pepper=settings.resolved_key_pepper(),
            clock=clock,
            note_use=uses.note,
            model_ids=lambda names: model_ids(catalogue, names),
            issuers=issuers,
        )


def model_ids(catalogue: Catalogue, names: frozenset[str]) -> frozenset[str]:
    """The ids of the models that `names`, ids or aliases, may mean."""
    return frozenset(
        entry.id
        for entry in catalogue.models
        if entry.id in names or not names.isdisjoint(entry.aliases)
    )
