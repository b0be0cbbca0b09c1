"""Tokens of OIDC issuers: checked against the issuer's keys, read by the operator's rules.

The authenticator hands over what names one of these issuers; joserfc alone verifies.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from atrium_common.errors import PermissionDenied
from atrium_gateway.auth.claims import (
    check_times,
    is_addressed,
    is_name,
    is_of_type,
    lookup,
    token_invalid,
    words,
)
from atrium_gateway.auth.documents import Fetch
from atrium_gateway.auth.issuer_rules import ANY_TENANT, IssuerRules
from atrium_gateway.auth.key_sets import KeySet
from atrium_gateway.auth.principal import ANY_SCOPE, Principal
from atrium_gateway.auth.roles import Role

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_UNREADABLE = (JoseError, ValueError, TypeError, UnicodeError, RecursionError)


class TokenIssuers:
    """The issuers whose tokens are taken.

    Args:
        rules: One per issuer.
        fetch: Fetches their documents.
        clock: Unix seconds.
        monotonic: Monotonic seconds, for pauses between looks at an issuer.
    """

    def __init__(
        self,
        rules: Sequence[IssuerRules],
        *,
        fetch: Fetch,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._issuers = {
            one.issuer: (one, KeySet(one, fetch=fetch, clock=monotonic)) for one in rules
        }

    def knows(self, token: str) -> bool:
        """Whether a token says that it is of one of these issuers; nothing is verified."""
        try:
            claims = json.loads(jws.extract_compact(token.encode("ascii")).payload or b"")
        except _UNREADABLE:
            return False
        issuer = claims.get("iss") if isinstance(claims, dict) else None
        return isinstance(issuer, str) and issuer in self._issuers

    async def check(self, token: str) -> Principal:
        """Checks signature, type, issuer, audience and times, and reads the claims.

        Raises:
            Unauthenticated: It does not hold; the message does not say which check failed,
                except that it has expired.
            PermissionDenied: The issuer may not speak for the tenant.
            Unavailable: Its key is not known, and the issuer can't be asked.
        """
        header, rules, keys = self._read(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if (
            algorithm not in rules.algorithms
            or not is_of_type(header.get("typ", ""), {known.lower() for known in rules.types})
            or not (kid is None or is_name(kid))
        ):
            raise token_invalid()
        key = await keys.key(kid, algorithm)
        if key is None:
            raise token_invalid()
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
        except _UNREADABLE as err:
            raise token_invalid() from err
        return self._principal(claims, rules)

    async def close(self) -> None:
        """Ends what is under way."""
        for _, keys in self._issuers.values():
            await keys.close()

    def _read(self, token: str) -> tuple[Mapping[str, Any], IssuerRules, KeySet]:
        """The header, and whose token it says it is; `knows` was asked before."""
        try:
            parts = jws.extract_compact(token.encode("ascii"))
            rules, keys = self._issuers[json.loads(parts.payload or b"")["iss"]]
        except (*_UNREADABLE, KeyError) as err:
            raise token_invalid() from err
        return parts.protected, rules, keys

    def _principal(self, claims: Mapping[str, object], rules: IssuerRules) -> Principal:
        skew = rules.skew_seconds
        ends = check_times(claims, now=self._clock(), late=skew, early=skew)
        tenant, subject = lookup(claims, rules.tenant_claim), claims.get("sub")
        if (
            claims.get("iss") != rules.issuer
            or not is_addressed(claims.get("aud"), rules.audience)
            or not is_name(subject)
            or not (isinstance(tenant, str) and _TENANT.fullmatch(tenant))
        ):
            raise token_invalid()
        if tenant not in rules.tenants and ANY_TENANT not in rules.tenants:
            raise PermissionDenied(
                "The token's issuer may not speak for this tenant.", reason="ISSUER_TENANT"
            )
        return Principal(
            tenant=tenant,
            subject=str(subject),
            roles=_roles(claims, rules),
            scopes=_scopes(claims, rules),
            expires_at=datetime.fromtimestamp(ends, UTC),
        )


def _roles(claims: Mapping[str, object], rules: IssuerRules) -> frozenset[str]:
    said = lookup(claims, rules.roles_claim)
    named = frozenset() if said is None else words(said)
    ours = {str(rules.roles.get(name, "")) for name in named} if rules.roles else named
    known = ours & frozenset(Role)
    if not rules.operators:
        known -= {Role.OPERATOR}
    if not known and rules.default_role is not None:
        return frozenset({str(rules.default_role)})
    return frozenset(known)


def _scopes(claims: Mapping[str, object], rules: IssuerRules) -> frozenset[str]:
    if rules.scope_claim is None:
        return frozenset({ANY_SCOPE})
    said = lookup(claims, rules.scope_claim)
    return frozenset() if said is None else words(said)
