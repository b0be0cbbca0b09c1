"""JSON web tokens of tenants: HS256 alone, checked and minted by joserfc."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from atrium_common.errors import Unauthenticated
from atrium_gateway.auth.principal import ANY_SCOPE, Principal

_ALGORITHMS = ["HS256"]
_CLOCK_SKEW_SECONDS = 5
_MAX_TEXT = 200


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
        """Checks signature, algorithm, issuer, audience and times.

        A token without a `scope` claim allows everything, one with an empty claim
        nothing.

        Raises:
            Unauthenticated: It does not hold; the message does not say which check
                failed, except that it has expired.
        """
        try:
            decoded = jwt.decode(token, self._key, algorithms=_ALGORITHMS)
        except (JoseError, ValueError, TypeError, UnicodeError) as err:
            raise _invalid() from err
        claims = decoded.claims
        self._check_times(claims)
        if claims.get("iss") != self._issuer or not self._addressed(claims.get("aud")):
            raise _invalid()
        tenant, subject = claims.get("tenant"), claims.get("sub")
        if not _is_name(tenant) or not _is_name(subject):
            raise _invalid()
        key_id = claims.get("key")
        if key_id is not None and not _is_name(key_id):
            raise _invalid()
        return Principal(
            tenant=str(tenant),
            subject=str(subject),
            key_id=key_id,
            models=_strings(claims["models"]) if "models" in claims else None,
            roles=_strings(claims.get("roles", [])),
            scopes=_scopes(claims),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )

    def _addressed(self, audience: object) -> bool:
        if isinstance(audience, list):
            return self._audience in audience
        return audience == self._audience

    def _check_times(self, claims: Mapping[str, object]) -> None:
        now = self._clock()
        expires, starts = claims.get("exp"), claims.get("nbf", 0)
        issued = claims.get("iat", 0)
        if not (_is_time(expires) and _is_time(starts) and _is_time(issued)):
            raise _invalid()
        if now >= float(str(expires)):
            raise Unauthenticated("The token has expired.", reason="TOKEN_EXPIRED")
        if max(float(str(starts)), float(str(issued))) > now + _CLOCK_SKEW_SECONDS:
            raise _invalid()


def _invalid() -> Unauthenticated:
    return Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def _strings(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _invalid()
    return frozenset(value)


def _scopes(claims: Mapping[str, object]) -> frozenset[str]:
    if "scope" not in claims:
        return frozenset({ANY_SCOPE})
    scope = claims["scope"]
    if not isinstance(scope, str):
        raise _invalid()
    return frozenset(scope.split())
