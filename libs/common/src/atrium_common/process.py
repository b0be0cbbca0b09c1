"""Runs a service's coroutine and ends its process; every service's `__main__` calls it.

A library that loads a model, or computes with it, can't be interrupted, and a process that is told
to stop must not wait for it. Python's own end would: it joins the threads of `asyncio.to_thread`
without a bound. And a thread that it does not join comes back from C++ into an interpreter that
is being taken down, which unwinds it by force and aborts the process ("terminate called without
an active exception"). So the interpreter is not taken down: once all is closed, the process ends.
"""

import asyncio
import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NoReturn

__all__ = ["run_service"]

_PATIENCE_SECONDS: Final = 1.0
"""For what threads still do when all is closed: a file that is being written, not a model."""


def run_service(main: Coroutine[Any, Any, None]) -> NoReturn:
    """Runs `main` to its end, then ends the process whatever its threads still do.

    The exit status is 0; 1, after a traceback, where `main` raised; 130 where a second Ctrl-C
    came while it stopped. Exit handlers (`atexit`) are called, and output is flushed.

    Args:
        main: What `serve` returned, not awaited yet.
    """
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(_BoundedThreads())
            try:
                runner.run(main)
            except KeyboardInterrupt:
                _end(128 + signal.SIGINT)  # at once: what was running is not closed any more
    except Exception:
        traceback.print_exc()
        _end(1)
    _end(0)


class _BoundedThreads(ThreadPoolExecutor):
    """What `asyncio.to_thread` runs in; the loop's end waits for it, and here not for long."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="asyncio")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more work; returns when all is done, or patience is over."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            ending = threading.Thread(target=super().shutdown, name="end-threads", daemon=True)
            ending.start()
            ending.join(_PATIENCE_SECONDS)


def _end(status: int) -> NoReturn:
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
