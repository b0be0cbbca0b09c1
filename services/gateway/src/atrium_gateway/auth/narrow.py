"""Short-lived tokens that allow less than their maker: what a backend gives to its browsers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from atrium_common.errors import InvalidArgument, NotFound, PermissionDenied
from atrium_gateway.auth.principal import Principal
from atrium_gateway.auth.roles import CLIENT_SCOPES
from atrium_gateway.auth.tokens import TokenClaims

MAX_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowTerms:
    """What is asked for.

    Attributes:
        scopes: Capabilities and what may be seen; never anything that changes records.
        models: Ids or aliases; the maker's own if ``None``.
        lifetime: Above 0, at most an hour; it ends no later than its maker.
        subject: User that it stands for; the maker's own if ``None``.
    """

    scopes: frozenset[str]
    models: frozenset[str] | None
    lifetime: timedelta
    subject: str | None


@dataclass(frozen=True, slots=True)
class NarrowToken:
    """A token that was just minted, what it allows and until when."""

    text: str
    claims: TokenClaims
    expires_at: datetime


def narrow_claims(
    maker: Principal,
    terms: NarrowTerms,
    *,
    now: float,
    model_ids: Callable[[frozenset[str]], frozenset[str]],
) -> TokenClaims:
    """What the token says.

    Args:
        maker: Who mints it.
        terms: What is asked for.
        now: Unix seconds.
        model_ids: Gives the catalogue's ids for ids and aliases.

    Raises:
        InvalidArgument: No scopes, or such as a client token can't have.
        NotFound: A model that does not exist.
        PermissionDenied: More than the maker may; `field` says what.
    """
    _check_scopes(maker, terms.scopes)
    lifetime = min(terms.lifetime, MAX_LIFETIME)
    if maker.expires_at is not None:
        lifetime = min(lifetime, maker.expires_at - datetime.fromtimestamp(now, UTC))
    lifetime = timedelta(seconds=int(lifetime.total_seconds()))
    if lifetime <= timedelta():
        raise InvalidArgument("The token would have expired already.", field="lifetime_seconds")
    # A key is a program that speaks for its users; a user speaks for nobody else.
    speaks = maker.key_id is not None and maker.subject == f"key:{maker.key_id}"
    if terms.subject not in (None, maker.subject) and not speaks:
        raise _above("subject", "only an API key names other users")
    return TokenClaims(
        tenant=maker.tenant,
        subject=terms.subject or maker.subject,
        lifetime=lifetime,
        scopes=terms.scopes,
        models=_models(maker, terms.models, model_ids),
        key_id=maker.key_id,
    )


def _check_scopes(maker: Principal, scopes: frozenset[str]) -> None:
    if not scopes:
        raise InvalidArgument("A token needs at least one scope.", field="scopes")
    for scope in sorted(scopes):
        if scope not in CLIENT_SCOPES:
            raise InvalidArgument(
                f"{scope[:100]!r} is none of the scopes that such a token may have: "
                f"{', '.join(sorted(CLIENT_SCOPES))}.",
                field="scopes",
            )
        if not maker.may(scope):
            raise _above("scopes", scope)


def _models(
    maker: Principal,
    asked: frozenset[str] | None,
    model_ids: Callable[[frozenset[str]], frozenset[str]],
) -> frozenset[str] | None:
    if asked is None:
        return maker.models
    found: frozenset[str] = frozenset()
    for name in sorted(asked):
        ids = model_ids(frozenset({name}))
        if not ids:
            raise NotFound(
                f"The model {name[:100]!r} does not exist.",
                reason="MODEL_NOT_FOUND",
                field="models",
            )
        # An alias may stand for several models; those of the maker are meant.
        ids = ids if maker.models is None else ids & maker.models
        if not ids:
            raise _above("models", name[:100])
        found |= ids
    return found


def _above(field: str, what: str) -> PermissionDenied:
    return PermissionDenied(
        f"Your credential can't give more than it has: {what}.", reason="ABOVE_CALLER", field=field
    )
