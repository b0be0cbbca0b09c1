"""Turns a bearer token into a principal; the REST layer and the servicer call it first."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from atrium_common.errors import PermissionDenied, Unauthenticated
from atrium_gateway.auth.issuers import TokenIssuers
from atrium_gateway.auth.keys import KEY_PREFIX, digest_key, key_id_of
from atrium_gateway.auth.narrow import NarrowTerms, NarrowToken, narrow_claims
from atrium_gateway.auth.networks import read_networks, within
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.tokens import TokenAuthority
from atrium_gateway.tenants.directory import Directory
from atrium_gateway.tenants.domain import ApiKey

_MAX_TOKEN_CHARACTERS = 8192
_MAX_ENTRIES = 10_000
_ISSUER_SECONDS = 60.0
"""How long a check is remembered where issuers may withdraw keys."""


class Authenticator:
    """Checks credentials, and remembers those that held for as long as nothing changed.

    A revoked key or a blocked tenant is refused at most a second after the change.

    Args:
        directory: Knows keys and tenants.
        tokens: Checks web tokens.
        pepper: Key of the digests of API keys.
        clock: Returns Unix seconds.
        note_use: Is told the id of each key as it is used; must not wait.
        model_ids: Gives the catalogue's ids for ids and aliases.
        issuers: Checks tokens of OIDC issuers; none are taken if not given.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        tokens: TokenAuthority,
        pepper: bytes,
        clock: Callable[[], float],
        note_use: Callable[[str], None] = lambda key_id: None,
        model_ids: Callable[[frozenset[str]], frozenset[str]] = lambda names: names,
        issuers: TokenIssuers | None = None,
    ) -> None:
        self._directory = directory
        self._tokens = tokens
        self._pepper = pepper
        self._clock = clock
        self._note_use = note_use
        self._model_ids = model_ids
        self._issuers = issuers
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._epoch = -1

    async def authenticate(self, token: str, *, address: str = "") -> Principal:
        """Who presents `token`, a JWT or an API key (without ``Bearer``).

        Args:
            token: The credential.
            address: Where its holder calls from; ``""`` if that is not known.

        Raises:
            Unauthenticated: It is missing, forged, expired or revoked.
            PermissionDenied: Its tenant is blocked, or it may not be used from there.
            Unavailable: It is not known yet and the database is away.
        """
        principal = await self._identify(token)
        if principal.networks and not within(address, principal.networks):
            raise PermissionDenied(
                "The API key may not be used from this network.", reason="KEY_NETWORK"
            )
        if principal.key_id is not None:
            self._note_use(principal.key_id)
        return principal

    async def _identify(self, token: str) -> Principal:
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

    def mint(self, maker: Principal, terms: NarrowTerms) -> NarrowToken:
        """Mints a short-lived token that allows no more than its maker.

        Raises:
            InvalidArgument: The terms can't be a client token's.
            NotFound: A model that does not exist.
            PermissionDenied: They are more than the maker may.
        """
        now = self._clock()
        claims = narrow_claims(maker, terms, now=now, model_ids=self._model_ids)
        text = self._tokens.mint(claims)
        return NarrowToken(text, claims, datetime.fromtimestamp(int(now), UTC) + claims.lifetime)

    async def _check(self, token: str) -> Principal:
        if not token:
            raise Unauthenticated("A token or an API key is needed.", reason="TOKEN_MISSING")
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise Unauthenticated("The token is too long.", reason="TOKEN_INVALID")
        if token.startswith(KEY_PREFIX):
            principal = await self._check_key(token)
        else:
            principal = await self._check_token(token)
        tenant = await self._directory.active_tenant(principal.tenant)
        return replace(
            principal,
            weight=tenant.weight,
            models=None if principal.models is None else self._model_ids(principal.models),
        )

    async def _check_token(self, text: str) -> Principal:
        if self._issuers is not None and self._issuers.knows(text):
            return await self._issuers.check(text)
        principal = self._tokens.check(text)
        if principal.key_id is not None:
            # It was minted with a key, and ends with it.
            key = await self._directory.key(principal.key_id)
            if key is None or key.tenant != principal.tenant:
                raise Unauthenticated("The token's API key is gone.", reason="KEY_INVALID")
            self._check_life(key)
        return principal

    async def _check_key(self, text: str) -> Principal:
        key_id = key_id_of(text)
        key = await self._directory.key(key_id) if key_id else None
        digest = digest_key(text, self._pepper)
        # Compared even when there is no such key, so that time does not tell.
        holds = hmac.compare_digest(key.digest if key else bytes(32), digest)
        before = hmac.compare_digest((key and key.previous_digest) or bytes(32), digest)
        if key is None or not (holds or before):
            raise Unauthenticated("The API key does not hold.", reason="KEY_INVALID")
        self._check_life(key)
        ends = key.expires_at
        if not holds:
            until = key.previous_until
            if until is None or until.timestamp() <= self._clock():
                raise Unauthenticated(
                    "The API key was rotated: use its new secret.", reason="KEY_ROTATED"
                )
            ends = until if ends is None else min(ends, until)
        return Principal(
            tenant=key.tenant,
            subject=f"key:{key.id}",
            key_id=key.id,
            roles=key.roles,
            scopes=key.scopes,
            expires_at=ends,
            models=key.models or None,
            networks=read_networks(key.networks),
        )

    def _check_life(self, key: ApiKey) -> None:
        if key.revoked_at is not None:
            raise Unauthenticated("The API key is revoked.", reason="KEY_REVOKED")
        if key.expires_at is not None and key.expires_at.timestamp() <= self._clock():
            raise Unauthenticated("The API key has expired.", reason="KEY_EXPIRED")

    def _remember(self, digest: bytes, principal: Principal, epoch: int) -> None:
        # What was checked before a change was noticed must not outlive the notice.
        if epoch != self._directory.epoch:
            return
        if len(self._known) >= _MAX_ENTRIES:
            self._known.clear()
        ends = principal.expires_at.timestamp() if principal.expires_at else float("inf")
        if self._issuers is not None:
            # An issuer that withdraws a key tells nobody.
            ends = min(ends, self._clock() + _ISSUER_SECONDS)
        self._known[digest] = (ends, principal)
