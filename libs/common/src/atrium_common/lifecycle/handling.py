"""What an engine tells its `ModelHost` about handling its models."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from atrium_common.catalogue import ModelEntry
from atrium_common.lifecycle.memory import device_bytes, expected_bytes

LoadedT = TypeVar("LoadedT")


async def _nothing_to_close(entry: ModelEntry, loaded: object) -> None:
    """Most models end with their last reference."""


def _never_fails(loaded: object) -> str:
    del loaded
    return ""


def _this_process(entry: ModelEntry) -> int | None:
    del entry
    return device_bytes("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHandling(Generic[LoadedT]):
    """How models are opened, tried and closed. All are called on the event loop.

    Attributes:
        open_model: Loads one and returns it; blocking work goes to a thread. It may raise
            anything, and is never cancelled but by `ModelHost.close`.
        warm_up: Runs a small pass; raises if the model can't answer. It is the engine's
            verification, and part of every load.
        close_model: Stops what the model runs (threads, processes) and keeps no reference:
            its memory is freed when this has returned.
        failure: Tells why a loaded model can't serve any more; ``""`` while it can.
        measure: Bytes that this process takes of the model's device now, ``None`` if
            unknown; called before and after a load. Default is the process's own memory.
        expect: Bytes that a model will hold, where nothing better is known.
    """

    open_model: Callable[[ModelEntry], Awaitable[LoadedT]]
    warm_up: Callable[[ModelEntry, LoadedT], Awaitable[None]]
    close_model: Callable[[ModelEntry, LoadedT], Awaitable[None]] = _nothing_to_close
    failure: Callable[[LoadedT], str] = _never_fails
    measure: Callable[[ModelEntry], int | None] = _this_process
    expect: Callable[[ModelEntry], int] = expected_bytes
