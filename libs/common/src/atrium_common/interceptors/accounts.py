"""What calls with one answer have consumed, for a gateway that did not receive the answer.

A stream carries its usage in every message. A call with one answer that is cancelled carries
none, and yet its caller has to charge for what was done: `usage_servicer.py` tells it from
here. `call.py` opens an account for each call that comes with a reservation.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from atrium.common.v1 import usage_pb2
from atrium_common.domain import Usage
from atrium_common.wire import usage_in, usage_to_proto

_REMEMBERED: Final = 4096


class Account:
    """One call: what it reported while it ran, and what its answer told."""

    __slots__ = ("_by_model", "_ended", "_usage", "_waiting")

    def __init__(self) -> None:
        self._usage: usage_pb2.Usage | Usage | None = None
        self._by_model: Sequence[usage_pb2.Usage | Usage] = ()
        self._ended = False
        self._waiting: asyncio.Event | None = None

    def report(self, usage: Usage, by_model: Sequence[Usage] = ()) -> None:
        """Remembers what was consumed so far; see `context.report_usage`."""
        self._usage = usage
        self._by_model = by_model

    def end(self, message: Message | None) -> None:
        """Says that nothing more will be consumed.

        Args:
            message: The answer, which tells the total; ``None`` if there is none.
        """
        if message is not None and (usage := usage_in(message)) is not None:
            # Copies: a part of a message would keep all of it in memory.
            self._usage = _copy(usage)
            self._by_model = [_copy(part) for part in getattr(message, "usage_by_model", ())]
        self._ended = True
        if self._waiting is not None:
            self._waiting.set()

    async def ended(self) -> None:
        """Waits for the call's end."""
        if not self._ended:
            self._waiting = self._waiting or asyncio.Event()
            await self._waiting.wait()

    @property
    def usage(self) -> usage_pb2.Usage | None:
        """The total so far; ``None`` before any work."""
        return None if self._usage is None else _message(self._usage)

    @property
    def usage_by_model(self) -> Sequence[usage_pb2.Usage]:
        """The same by model, where it was told so; else empty."""
        return [_message(part) for part in self._by_model]


class Accounts:
    """The latest account of each reservation.

    Args:
        remembered: Reservations that are known at once, those of running calls included;
            the oldest are forgotten.
    """

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def open(self, reservation_id: str) -> Account:
        """Begins the account of a call, in the place of an earlier one of its reservation."""
        account = self._accounts[reservation_id] = Account()
        self._accounts.move_to_end(reservation_id)
        while len(self._accounts) > self._remembered:
            self._accounts.popitem(last=False)
        return account

    def find(self, reservation_id: str) -> Account | None:
        """The account of a reservation; ``None`` if there is none, or none any more."""
        return self._accounts.get(reservation_id)


def _message(usage: usage_pb2.Usage | Usage) -> usage_pb2.Usage:
    return usage_to_proto(usage) if isinstance(usage, Usage) else usage


def _copy(usage: usage_pb2.Usage) -> usage_pb2.Usage:
    copied = usage_pb2.Usage()
    copied.CopyFrom(usage)
    return copied
