"""The identity that a credential stands for; made by the authenticator, read everywhere."""

from dataclasses import dataclass
from datetime import datetime

ANY_SCOPE = "*"
"""The scope that allows everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, and what the credential allows.

    Attributes:
        tenant: Tenant that the work is charged to.
        subject: User or key that asked, for logs and the ledger.
        key_id: Id of the API key, or ``None`` for a token.
        roles: Roles inside the tenant, e.g. ``"admin"``.
        scopes: Capabilities and areas that are allowed; ``"*"`` allows all.
        weight: Share in fair scheduling, above 0.
        expires_at: When the credential ends, aware UTC; ``None`` if it does not.
    """

    tenant: str
    subject: str
    key_id: str | None = None
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset({ANY_SCOPE})
    weight: float = 1.0
    expires_at: datetime | None = None

    def allows(self, scope: str) -> bool:
        """Whether the credential covers `scope`, e.g. a capability or ``"usage"``."""
        return scope in self.scopes or ANY_SCOPE in self.scopes
