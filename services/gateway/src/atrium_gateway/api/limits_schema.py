"""The parameters and the JSON of `/api/limits`. No logic."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from atrium_gateway.api.names import KeyId, TenantId, Text

UnitName = Literal[
    "requests",
    "tokens",
    "audio_seconds",
    "characters",
    "images",
    "megapixel_steps",
    "pages",
    "gpu_milliseconds",
    "cost",
]
WindowName = Literal["minute", "hour", "day", "month", "total", "concurrent"]
Amount = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=32)]


class LimitsQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /api/limits`: one key's or one user's beside those of the tenant."""

    key: KeyId | None = None
    user: Text | None = None
    tenant: TenantId | None = None


class LimitKind(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query of `DELETE /api/limits`: which limit; `capability` or `model`, or all together."""

    unit: UnitName
    window: WindowName
    capability: Text | None = None
    model: Text | None = None
    key: KeyId | None = None
    user: Text | None = None
    tenant: TenantId | None = None


class LimitRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /api/limits`; a limit of the same kind is replaced.

    `amount` is a whole number of units, for `cost` the currency's as text. ``null``, in a
    tenant's own limit, lifts the plan's or the default one.
    """

    unit: UnitName
    window: WindowName
    amount: Amount | None
    capability: Text | None = None
    model: Text | None = None
    key: KeyId | None = None
    user: Text | None = None


class LimitObject(Struct, frozen=True, kw_only=True):
    """A limit; `source` is `tenant`, `default`, `plan:`, `key:` or `user:` with whose.

    `used` and `remaining` are null where nobody can tell now, and where many limits are listed;
    `resets_at` is null where no window ends.
    """

    source: str
    capability: str | None
    model: str | None
    unit: str
    window: str
    amount: int | str | None
    used: int | float | str | None
    remaining: int | float | str | None
    resets_at: datetime | None


class LimitList(Struct, frozen=True, kw_only=True):
    """Answer of `/api/limits`: every limit that holds; all of them must."""

    tenant: str
    plan: str | None
    unlimited: bool
    limits: list[LimitObject]
