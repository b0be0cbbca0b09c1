"""JSON web tokens of the gateway itself: HS256 alone, checked and minted by joserfc."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from atrium_gateway.auth.claims import (
    check_times,
    is_addressed,
    is_name,
    is_of_type,
    strings,
    token_invalid,
)
from atrium_gateway.auth.principal import ANY_SCOPE, Principal

_ALGORITHMS = ["HS256"]
_TYPES = frozenset({"", "jwt", "at+jwt"})
"""Values of the header `typ`: a token made for something else is none of ours."""
_CLOCK_SKEW_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a token is minted with.

    Attributes:
        tenant: Tenant id.
        subject: User that it stands for, at most 200 characters.
        lifetime: How long it holds; above 0.
        scopes: What it allows; ``"*"`` is everything.
        roles: Roles that it carries.
        models: Ids or aliases of the models that it may use; all if ``None``.
        key_id: Key that it was minted with; the token ends with it.
    """

    tenant: str
    subject: str
    lifetime: timedelta
    scopes: frozenset[str] = frozenset({ANY_SCOPE})
    roles: frozenset[str] = frozenset()
    models: frozenset[str] | None = None
    key_id: str | None = None


class TokenAuthority:
    """Mints and checks tokens with one shared secret.

    Args:
        secret: At least 32 bytes.
        issuer: `iss` to write and to demand.
        audience: `aud` to write and to demand.
        clock: Returns Unix seconds.
    """

    def __init__(
        self, *, secret: bytes, issuer: str, audience: str, clock: Callable[[], float]
    ) -> None:
        self._key = OctKey.import_key(secret)
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def mint(self, claims: TokenClaims) -> str:
        """Returns a signed token.

        Raises:
            ValueError: The lifetime is not above 0.
        """
        if claims.lifetime <= timedelta():
            raise ValueError("a token's lifetime must be above 0")
        now = int(self._clock())
        payload: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": claims.subject,
            "tenant": claims.tenant,
            "iat": now,
            "exp": now + int(claims.lifetime.total_seconds()),
            "scope": " ".join(sorted(claims.scopes)),
            "roles": sorted(claims.roles),
        }
        if claims.models is not None:
            payload["models"] = sorted(claims.models)
        if claims.key_id is not None:
            payload["key"] = claims.key_id
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, payload, self._key)

    def check(self, token: str) -> Principal:
        """Checks signature, algorithm, type, issuer, audience and times.

        A token without a `scope` claim allows everything, one with an empty claim
        nothing.

        Raises:
            Unauthenticated: It does not hold; the message does not say which check
                failed, except that it has expired.
        """
        try:
            decoded = jwt.decode(token, self._key, algorithms=_ALGORITHMS)
        except (JoseError, ValueError, TypeError, UnicodeError) as err:
            raise token_invalid() from err
        if not is_of_type(decoded.header.get("typ", ""), _TYPES):
            raise token_invalid()
        claims = decoded.claims
        ends = check_times(claims, now=self._clock(), late=0, early=_CLOCK_SKEW_SECONDS)
        if claims.get("iss") != self._issuer or not is_addressed(claims.get("aud"), self._audience):
            raise token_invalid()
        tenant, subject = claims.get("tenant"), claims.get("sub")
        if not is_name(tenant) or not is_name(subject):
            raise token_invalid()
        key_id = claims.get("key")
        if key_id is not None and not is_name(key_id):
            raise token_invalid()
        return Principal(
            tenant=str(tenant),
            subject=str(subject),
            key_id=key_id,
            models=strings(claims["models"]) if "models" in claims else None,
            roles=strings(claims.get("roles", [])),
            scopes=_scopes(claims),
            expires_at=datetime.fromtimestamp(ends, UTC),
        )


def _scopes(claims: Mapping[str, object]) -> frozenset[str]:
    if "scope" not in claims:
        return frozenset({ANY_SCOPE})
    scope = claims["scope"]
    if not isinstance(scope, str):
        raise token_invalid()
    return frozenset(scope.split())
