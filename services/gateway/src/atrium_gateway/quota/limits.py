"""What a limit is: units, windows, and the state that callers are told.

Pure values without a clock; the policy picks them, the store counts against them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from atrium_common.domain import Usage

ANY_CAPABILITY = "*"
"""Selector of a limit that counts all capabilities and models together."""
MODEL_PREFIX = "model:"
"""Begins the selector of a limit that counts one model, whatever it is used for."""
UTC_ZONE = "UTC"
"""Time zone of windows where none is stated."""
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""Reset time of a window that never begins anew."""


class Unit(StrEnum):
    """What is counted. Amounts that callers see are whole numbers of these.

    Time on the devices is known only when the work is done: one millisecond is reserved,
    and the truth settled. Cost is what the price book says, in millionths of its currency.
    """

    REQUESTS = "requests"
    TOKENS = "tokens"
    AUDIO_SECONDS = "audio_seconds"
    CHARACTERS = "characters"
    IMAGES = "images"
    MEGAPIXEL_STEPS = "megapixel_steps"
    PAGES = "pages"
    GPU_MILLISECONDS = "gpu_milliseconds"
    COST = "cost"

    @property
    def scale(self) -> int:
        """Internal counts per unit: audio is counted in ms, megapixel-steps in 1/1000."""
        return 1000 if self in (Unit.AUDIO_SECONDS, Unit.MEGAPIXEL_STEPS) else 1


class Window(StrEnum):
    """Over what time it is counted.

    Day and month are those of the tenant's calendar, an hour is one of UTC's; a minute is a
    bucket that holds the limit and drains it steadily (the generic cell rate algorithm,
    GCRA), so that no burst of twice the limit fits around an edge; total never begins
    anew; concurrent counts what is running (unit requests only).
    """

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"
    CONCURRENT = "concurrent"


WINDOW_LENGTH: Final[dict[Window, timedelta]] = {
    Window.MINUTE: timedelta(minutes=1),
    Window.HOUR: timedelta(hours=1),
    Window.DAY: timedelta(days=1),
    Window.MONTH: timedelta(days=30),
    Window.TOTAL: timedelta(),
    Window.CONCURRENT: timedelta(),
}
"""Length to tell callers; zero for windows that time does not end, a month is nominal."""

LEDGERED: Final = frozenset({Window.HOUR, Window.DAY, Window.MONTH, Window.TOTAL})
"""Windows whose counts the ledger can tell, after a store lost them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a plan, a tenant, a key or a user.

    Attributes:
        selector: What it binds: a capability, ``"model:<id>"``, or ``"*"`` for all together.
        unit: What is counted.
        window: Over what time.
        amount: Whole units allowed in a window, 0 or more; ``None``, in a tenant's own,
            lifts the plan's or the default limit of this selector, unit and window.
        since: Grows whenever it was not there for a while: its counts of before do not hold.
    """

    selector: str
    unit: Unit
    window: Window
    amount: int | None
    since: int = 0


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """A limit bound to its counter: what the store needs to check one request.

    Attributes:
        key: Name of the counter; two meters of one key share what they count.
        capability: Capability that it binds, or ``"*"``.
        unit: What is counted.
        window: Over what time.
        limit: Amount allowed, in internal counts.
        scale: Internal counts per unit (`Unit.scale`).
        scope: What the limit is bound to, for callers.
        name: What callers tell limits apart by: ``level:selector:unit:window``.
        model: Model that it binds, or ``""``.
        key_id: Key whose work alone it counts, or ``""``.
        subject: Subject whose work alone it counts, or ``""``.
        time_zone: IANA name of the zone that its days and months are of.
    """

    key: str
    capability: str
    unit: Unit
    window: Window
    limit: int
    scale: int
    scope: str
    name: str = ""
    model: str = ""
    key_id: str = ""
    subject: str = ""
    time_zone: str = UTC_ZONE


class LimitState(msgspec.Struct, frozen=True):
    """One limit after a reservation.

    Attributes:
        unit: What is counted, e.g. ``"requests"``.
        window: Length of the window; zero if time does not end it.
        limit: Amount allowed in a window, whole units.
        remaining: Amount still free, whole units, 0 or more.
        reset_time: When the window begins anew, aware UTC.
        name: Name of the limit, ``level:selector:unit:window``.
    """

    unit: str
    window: timedelta
    limit: int
    remaining: int
    reset_time: datetime
    name: str = ""


_MILLISECOND: Final = timedelta(milliseconds=1)


def milliseconds(span: timedelta) -> int:
    """Whole milliseconds of `span`, rounded up: half of one is not free."""
    return -(-span // _MILLISECOND)


MEASURES: Final[dict[Unit, Callable[[Usage], int]]] = {
    Unit.REQUESTS: lambda usage: 1,
    Unit.TOKENS: lambda usage: usage.input_tokens + usage.output_tokens,
    Unit.AUDIO_SECONDS: lambda usage: milliseconds(usage.input_audio + usage.output_audio),
    Unit.CHARACTERS: lambda usage: usage.characters,
    Unit.IMAGES: lambda usage: usage.images,
    Unit.MEGAPIXEL_STEPS: lambda usage: usage.millimegapixel_steps,
    Unit.PAGES: lambda usage: usage.pages,
    Unit.GPU_MILLISECONDS: lambda usage: milliseconds(usage.inference_time),
}
"""How much of each unit a usage is, in internal counts; cost is the price book's matter."""


class LimitView(Protocol):
    """What callers are told of a limit; a reservation's state and a violation have it."""

    @property
    def name(self) -> str:
        """``level:selector:unit:window``; empty if it is not known."""
        ...

    @property
    def window(self) -> timedelta:
        """Length of the window; zero if time does not end it."""
        ...

    @property
    def unit(self) -> str:
        """What is counted."""
        ...

    @property
    def limit(self) -> int:
        """Amount allowed in a window."""
        ...

    @property
    def remaining(self) -> int:
        """Amount still free."""
        ...

    @property
    def reset_time(self) -> datetime:
        """When the window begins anew, aware UTC."""
        ...
