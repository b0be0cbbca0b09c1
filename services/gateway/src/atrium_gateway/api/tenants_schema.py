"""The parameters and the JSON of `/api/tenants`. No logic."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from atrium_gateway.api.names import TenantId, Text

Weight = Annotated[float, Meta(gt=0, le=1000)]
Zone = Annotated[str, Meta(min_length=1, max_length=64)]
PageSize = Annotated[int, Meta(ge=1, le=1000)]
FallbackName = Literal["local", "refuse"]


class TenantsQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/tenants`; `after` is the `next` of the page before."""

    limit: PageSize = 100
    after: TenantId | None = None


class TenantRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/tenants`; `name` is the id if not given."""

    id: TenantId
    name: Text | None = None
    plan: TenantId | None = None
    time_zone: Zone = "UTC"
    fallback: FallbackName = "local"
    weight: Weight = 1.0
    unlimited: bool = False


class TenantChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `PATCH /api/tenants/{tenant}`: what is absent stays as it is.

    A tenant's admins change `name` and `time_zone`, operators everything.
    """

    name: Text | UnsetType = UNSET
    time_zone: Zone | UnsetType = UNSET
    blocked: bool | UnsetType = UNSET
    plan: TenantId | UnsetType | None = UNSET
    weight: Weight | UnsetType = UNSET
    unlimited: bool | UnsetType = UNSET
    fallback: FallbackName | UnsetType = UNSET


class TenantObject(Struct, frozen=True, kw_only=True):
    """A tenant; its limits are in `/api/limits`."""

    id: str
    name: str
    blocked: bool
    unlimited: bool
    weight: float
    plan: str | None
    time_zone: str
    fallback: str
    created_at: datetime


class TenantList(Struct, frozen=True):
    """Answer of `GET /api/tenants`, by id; `next` goes into `after`."""

    tenants: list[TenantObject]
    next: str | None


class TenantDeleted(Struct, frozen=True, kw_only=True):
    """Answer of `DELETE /api/tenants/{tenant}`; `alias` stands for it in the ledger.

    `export` is the name of the file with everything that it was, in the gateway's folder
    of exports.
    """

    id: str
    deleted: bool
    alias: str
    export: str
    finished_at: datetime | None
