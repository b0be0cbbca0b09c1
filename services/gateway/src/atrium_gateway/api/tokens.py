"""`POST /api/tokens`: a short-lived, narrow token, for a browser and its WebSockets."""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from atrium_gateway.api.decode import decode
from atrium_gateway.api.exchange import Exchange
from atrium_gateway.api.names import Text
from atrium_gateway.auth.narrow import NarrowTerms
from atrium_gateway.auth.roles import Action

_ENCODER = msgspec.json.Encoder()

Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^\S+$")]
Words = Annotated[list[Word], Meta(min_length=1, max_length=50)]


class TokenRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/tokens`.

    `scopes` are capabilities, and of the actions those that only show something. `models`
    are ids or aliases, the caller's own if left out. `subject` is the user that the token
    stands for; an API key may name any, other callers themselves alone.
    """

    scopes: Words
    models: Words | None = None
    lifetime_seconds: Annotated[int, Meta(ge=1, le=3600)] = 600
    subject: Text | None = None


class TokenAnswer(Struct, frozen=True, kw_only=True):
    """A token, shown this once."""

    token: str
    tenant: str
    subject: str
    scopes: list[str]
    models: list[str] | None
    expires_at: datetime


async def create_token(exchange: Exchange) -> None:
    """Mints a token that allows no more than its caller, and ends with it."""
    principal = await exchange.authenticate()
    principal.demand(Action.TOKENS_WRITE)
    asked = decode(await exchange.json_body(), TokenRequest)
    made = exchange.gateway.authenticator.mint(
        principal,
        NarrowTerms(
            scopes=frozenset(asked.scopes),
            models=None if asked.models is None else frozenset(asked.models),
            lifetime=timedelta(seconds=asked.lifetime_seconds),
            subject=asked.subject,
        ),
    )
    claims = made.claims
    answer = TokenAnswer(
        token=made.text,
        tenant=claims.tenant,
        subject=claims.subject,
        scopes=sorted(claims.scopes),
        models=None if claims.models is None else sorted(claims.models),
        expires_at=made.expires_at,
    )
    exchange.spoil()  # a token is written down nowhere; a repeat may well mint another
    await exchange.reply(_ENCODER.encode(answer), status=201, headers={"cache-control": "no-store"})
