"""What an operator says of an OIDC issuer; `settings.py` reads it, `issuers.py` keeps to it."""

from collections.abc import Mapping
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from atrium_gateway.auth.roles import Role

ANY_TENANT = "*"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class IssuerRules(BaseModel):
    """One issuer whose tokens are taken, and what they may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    """`iss` of its tokens, exactly; https, but for a loopback address."""
    audience: str = Field(min_length=1)
    """What `aud` must be or contain."""
    tenants: tuple[str, ...] = Field(min_length=1)
    """Tenants that it may speak for; ``"*"`` for any, which trusts it with all of them."""
    jwks_url: str | None = None
    """Where its keys are; found by its discovery document if not given."""
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(
        default=("RS256", "ES256"), min_length=1
    )
    """Signatures that are taken."""
    types: tuple[str, ...] = Field(default=("at+jwt", "JWT"), min_length=1)
    """Values of the header `typ` that are taken, whatever their case; ``""`` for none."""
    tenant_claim: str = "tenant"
    """Claim with the tenant's id; a path such as ``org.id`` where no claim has this name."""
    roles_claim: str = "roles"
    """Claim with roles, a list or words; a path as above."""
    roles: Mapping[str, Role] = Field(default_factory=dict)
    """Our roles by the issuer's; as they are named if empty."""
    default_role: Role | None = None
    """Role of who brings none that is known; without it, of a plain caller."""
    operators: bool = False
    """Whether it may name operators, who reach every tenant."""
    scope_claim: str | None = "scope"
    """Claim with scopes, a list or words; ``null`` lets roles alone decide."""
    skew_seconds: float = Field(default=30.0, ge=0, le=300)
    """How far its clock may be from ours."""

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _is_safe(cls, url: str | None) -> str | None:
        if url is not None and not is_safe(url):
            raise ValueError("needs https, or http on a loopback address")
        return url

    @model_validator(mode="after")
    def _names_no_operator(self) -> Self:
        if self.default_role is Role.OPERATOR:
            raise ValueError("default_role can't be operator")
        return self


def is_safe(url: str) -> bool:
    """Whether keys may be fetched from an address: nobody on the way can change them."""
    try:
        parts = urlsplit(url)
        # `port` raises where it is no number.
        usable = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False
    return usable and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )
