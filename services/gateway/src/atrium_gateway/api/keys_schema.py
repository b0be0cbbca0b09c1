"""The parameters and the JSON of `/api/keys`. No logic."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from atrium_gateway.api.names import KeyId, Label, Moment, TenantId

Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^\S+$")]
Words = Annotated[list[Word], Meta(max_length=50)]
PageSize = Annotated[int, Meta(ge=1, le=1000)]
Grace = Annotated[int, Meta(ge=0, le=30 * 86_400)]


class OfTenant(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query that names another tenant, for operators."""

    tenant: TenantId | None = None


class KeysQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/keys`; `after` is the `next` of the page before."""

    limit: PageSize = 100
    after: KeyId | None = None
    tenant: TenantId | None = None


class KeyRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/keys`.

    `scopes` are capabilities, areas (``"usage"``) or actions (``"keys:read"``). Without
    `roles` a key works, sees usage and mints narrow tokens. `models` and `networks` bind
    it; empty ones do not.
    """

    name: Label = ""
    scopes: Words = field(default_factory=lambda: ["*"])
    roles: Words = []
    models: Words = []
    networks: Words = []
    expires_at: Moment | None = None


class KeyChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `PATCH /api/keys/{key}`: what is absent stays as it is."""

    name: Label | UnsetType = UNSET
    scopes: Words | UnsetType = UNSET
    roles: Words | UnsetType = UNSET
    models: Words | UnsetType = UNSET
    networks: Words | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class KeyRotation(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/keys/{key}/rotate`: how long the old secret holds, in seconds."""

    grace_seconds: Grace = 86_400


class KeyObject(Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    roles: list[str]
    models: list[str]
    networks: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    previous_until: datetime | None


class KeyWithSecret(KeyObject, frozen=True, kw_only=True):
    """A key as it is shown once; `key` is what clients send."""

    key: str


class KeyList(Struct, frozen=True):
    """Answer of `GET /api/keys`, oldest first; `next` goes into `after`."""

    keys: list[KeyObject]
    next: str | None
