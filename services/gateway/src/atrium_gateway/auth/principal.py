"""The identity that a credential stands for; made by the authenticator, read everywhere."""

from dataclasses import dataclass
from datetime import datetime

from atrium_common.errors import PermissionDenied
from atrium_gateway.auth.networks import Network
from atrium_gateway.auth.roles import ANY_SCOPE, Role, covered, granted

__all__ = ["ANY_SCOPE", "Principal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, and what the credential allows.

    Attributes:
        tenant: Tenant that the work is charged to.
        subject: User or key that asked, for logs and the ledger.
        key_id: Id of the API key, or ``None`` for a token.
        roles: Roles inside the tenant, e.g. ``"admin"``.
        scopes: Capabilities, actions and areas that are allowed; ``"*"`` allows all.
        weight: Share in fair scheduling, above 0.
        expires_at: When the credential ends, aware UTC; ``None`` if it does not.
        models: Catalogue ids of the models that it may use; all if ``None``.
        networks: Networks that it may be used from; any if empty.
    """

    tenant: str
    subject: str
    key_id: str | None = None
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset({ANY_SCOPE})
    weight: float = 1.0
    expires_at: datetime | None = None
    models: frozenset[str] | None = None
    networks: tuple[Network, ...] = ()

    def may(self, action: str, *, tenant: str | None = None) -> bool:
        """Whether a role grants `action`, the scopes cover it, and it is in reach.

        Args:
            action: A value of `Action` or `Capability`.
            tenant: Whose; its own if not given. Another's is in an operator's reach alone.
        """
        if not self._reaches(tenant):
            return False
        return covered(self.scopes, action) and granted(self.roles, action)

    def demand(self, action: str, *, tenant: str | None = None) -> None:
        """Lets pass who `may`.

        Raises:
            PermissionDenied: It is another tenant's, no role grants the action, or the
                scopes do not cover it; the reason says which.
        """
        if self.may(action, tenant=tenant):
            return
        if not self._reaches(tenant):
            raise PermissionDenied(
                "A tenant reaches only what is its own.", reason="OTHER_TENANT", field="tenant"
            )
        if not covered(self.scopes, action):
            raise PermissionDenied(
                f"The credential does not allow {action}.", reason="SCOPE_MISSING"
            )
        raise PermissionDenied(f"Its roles do not allow {action}.", reason="ROLE_MISSING")

    def _reaches(self, tenant: str | None) -> bool:
        return tenant in (None, self.tenant) or Role.OPERATOR in self.roles

    def demand_model(self, model: str) -> None:
        """Lets pass who may use a model.

        Args:
            model: Its catalogue id.

        Raises:
            PermissionDenied: The credential is for other models.
        """
        if self.models is not None and model not in self.models:
            raise PermissionDenied(
                f"The credential does not allow the model {model!r}.",
                reason="MODEL_NOT_ALLOWED",
                field="model",
            )
