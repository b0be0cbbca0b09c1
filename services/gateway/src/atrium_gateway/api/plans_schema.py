"""The JSON of `/api/plans`. No logic."""

from typing import Annotated

from msgspec import Meta, Struct

from atrium_gateway.api.limits_schema import Amount, UnitName, WindowName
from atrium_gateway.api.names import TenantId, Text


class PlanNamed(Struct, forbid_unknown_fields=True):
    """The parameter of the path; plans are named as tenants are."""

    plan: TenantId


class PlanLimit(Struct, forbid_unknown_fields=True, kw_only=True):
    """A limit of a plan: of a `capability` or a `model`, or of all together.

    `amount` is a whole number of units, for `cost` the currency's as text.
    """

    unit: UnitName
    window: WindowName
    amount: Amount
    capability: Text | None = None
    model: Text | None = None


class PlanRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /api/plans/{plan}`: all of the plan; `name` is the id if not given."""

    name: Text | None = None
    limits: Annotated[list[PlanLimit], Meta(max_length=200)] = []


class PlanLimitObject(Struct, frozen=True, kw_only=True):
    """A limit of a plan; without `capability` and `model` it binds all together."""

    capability: str | None
    model: str | None
    unit: str
    window: str
    amount: int | str


class PlanObject(Struct, frozen=True, kw_only=True):
    """A plan."""

    id: str
    name: str
    limits: list[PlanLimitObject]


class PlanList(Struct, frozen=True):
    """Answer of `GET /api/plans`, by id."""

    plans: list[PlanObject]


class PlanRemoved(Struct, frozen=True, kw_only=True):
    """Answer of `DELETE /api/plans/{plan}`."""

    id: str
    deleted: bool
