"""Names and times in the queries, paths and bodies of administration, as the database holds them.

The schemas of `/api/tenants`, `/api/keys`, `/api/limits`, `/api/audit` and `/api/usage` are made
of these: what no database takes is refused by name, before anything is looked for.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from atrium_common.errors import InvalidArgument

STORABLE = r"^[^\x00]*$"
"""No database takes a text with a zero in it."""
# A mere `$` would let pass a line break behind it.
TENANT_ID = r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)"
KEY_ID = r"^[A-Za-z0-9]{1,32}$(?!\n)"
TenantId = Annotated[str, Meta(pattern=TENANT_ID)]
KeyId = Annotated[str, Meta(pattern=KEY_ID)]
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=STORABLE)]
Label = Annotated[str, Meta(max_length=200, pattern=STORABLE)]
Moment = Annotated[datetime, Meta(tz=True)]


def is_tenant_id(text: str) -> bool:
    """Whether a text of a path can name a tenant."""
    return re.match(TENANT_ID, text) is not None


def is_key_id(text: str) -> bool:
    """Whether a text of a path can name a key."""
    return re.match(KEY_ID, text) is not None


def in_utc(moment: datetime | None, field: str) -> datetime | None:
    """The same time in UTC.

    Raises:
        InvalidArgument: Its calendar has no such time; `field` names it.
    """
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError as err:
        raise InvalidArgument(f"{field} is out of range.", field=field) from err
