"""Turns a bearer token into a principal; the REST layer and the servicer call it first."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace

from atrium_common.errors import Unauthenticated
from atrium_gateway.auth.keys import KEY_PREFIX, digest_key, key_id_of
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.tokens import TokenAuthority
from atrium_gateway.tenants.directory import Directory

_MAX_TOKEN_CHARACTERS = 8192
_MAX_ENTRIES = 10_000


class Authenticator:
    """Checks credentials, and remembers those that held for as long as nothing changed.

    A revoked key or a blocked tenant is refused at most a second after the change.

    Args:
        directory: Knows keys and tenants.
        tokens: Checks web tokens.
        pepper: Key of the digests of API keys.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        tokens: TokenAuthority,
        pepper: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._tokens = tokens
        self._pepper = pepper
        self._clock = clock
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._epoch = -1

    async def authenticate(self, token: str) -> Principal:
        """Who presents `token`, a JWT or an API key (without ``Bearer``).

        Raises:
            Unauthenticated: It is missing, forged, expired or revoked.
            PermissionDenied: Its tenant is blocked.
            Unavailable: It is not known yet and the database is away.
        """
        if self._directory.stale:
            await self._directory.check()
        epoch = self._directory.epoch
        if self._epoch != epoch:
            self._known.clear()
            self._epoch = epoch
        # Not the token itself: a memory dump should hold as few credentials as it can.
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known[0]:
            return known[1]
        principal = await self._check(token)
        self._remember(digest, principal, epoch)
        return principal

    async def tenant_principal(self, tenant_id: str, *, subject: str = "service") -> Principal:
        """The principal of a trusted service that acts for a tenant.

        Raises:
            Unauthenticated: There is no such tenant.
            PermissionDenied: It is blocked.
            Unavailable: It is not known yet and the database is away.
        """
        tenant = await self._directory.active_tenant(tenant_id)
        return Principal(tenant=tenant.id, subject=subject, weight=tenant.weight)

    async def _check(self, token: str) -> Principal:
        if not token:
            raise Unauthenticated("A token or an API key is needed.", reason="TOKEN_MISSING")
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise Unauthenticated("The token is too long.", reason="TOKEN_INVALID")
        if token.startswith(KEY_PREFIX):
            principal = await self._check_key(token)
        else:
            principal = self._tokens.check(token)
        tenant = await self._directory.active_tenant(principal.tenant)
        return replace(principal, weight=tenant.weight)

    async def _check_key(self, text: str) -> Principal:
        key_id = key_id_of(text)
        key = await self._directory.key(key_id) if key_id else None
        # Compared even when there is no such key, so that time does not tell.
        stored = key.digest if key else bytes(32)
        holds = hmac.compare_digest(stored, digest_key(text, self._pepper))
        if key is None or not holds:
            raise Unauthenticated("The API key does not hold.", reason="KEY_INVALID")
        if key.revoked_at is not None:
            raise Unauthenticated("The API key is revoked.", reason="KEY_REVOKED")
        if key.expires_at is not None and key.expires_at.timestamp() <= self._clock():
            raise Unauthenticated("The API key has expired.", reason="KEY_EXPIRED")
        return Principal(
            tenant=key.tenant,
            subject=f"key:{key.id}",
            key_id=key.id,
            roles=key.roles,
            scopes=key.scopes,
            expires_at=key.expires_at,
        )

    def _remember(self, digest: bytes, principal: Principal, epoch: int) -> None:
        # What was checked before a change was noticed must not outlive the notice.
        if epoch != self._directory.epoch:
            return
        if len(self._known) >= _MAX_ENTRIES:
            self._known.clear()
        ends = principal.expires_at.timestamp() if principal.expires_at else float("inf")
        self._known[digest] = (ends, principal)
