"""`make run` from its first line to its last: check, fetch, start, welcome, stop.

Called by `scripts/run.py`. Exit status: 0 after Ctrl-C or SIGTERM, 1 when the suite could not be
started (one line says why), 130 when a second Ctrl-C killed it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from launcher import identity, preflight, weights
from launcher.display import Display
from launcher.errors import LaunchError
from launcher.options import Options, parse
from launcher.probe import until_served
from launcher.programs import plan, suite_environment
from launcher.suite import Suite

_NOTE_EVERY_SECONDS = 10.0
_CONNECT_SECONDS = 30.0


class Stop:
    """The wish to stop: the first signal drains, the second one kills."""

    def __init__(self) -> None:
        self.wished = asyncio.Event()
        self.forced = asyncio.Event()

    def listen(self) -> None:
        """Takes over Ctrl-C, SIGTERM and the end of the terminal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Called once per signal."""
        (self.forced if self.wished.is_set() else self.wished).set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite until it is stopped; returns the exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    display = Display()
    try:
        preflight.check(options)
        with preflight.lock(options.state):
            return asyncio.run(_run(options, display, dict(os.environ)))
    except LaunchError as err:
        if str(err):
            display.error(str(err))
        return 1


async def _run(options: Options, display: Display, environment: Mapping[str, str]) -> int:
    stop = Stop()
    stop.listen()
    suite = Suite(
        logs=options.state / "logs", report=display.line, drain_seconds=options.drain_seconds
    )
    work = asyncio.create_task(_serve(options, display, environment, suite))
    wished = asyncio.create_task(stop.wished.wait())
    await asyncio.wait({work, wished}, return_when=asyncio.FIRST_COMPLETED)
    wished.cancel()
    if not work.done():
        display.note("stopping: running requests may finish; Ctrl-C again ends them")
        work.cancel()
    forced = asyncio.create_task(stop.forced.wait())
    await asyncio.wait({work, forced}, return_when=asyncio.FIRST_COMPLETED)
    was_forced = forced.done()
    if was_forced:
        suite.kill()
    forced.cancel()
    try:
        await work
    except asyncio.CancelledError:
        display.note("killed" if was_forced else "stopped")
    return 130 if was_forced else 0


async def _serve(
    options: Options, display: Display, environment: Mapping[str, str], suite: Suite
) -> None:
    """Brings the suite up and watches it; cancelled, it stops the suite first."""
    credential = preflight.kept_credential(options.state)
    shared = suite_environment(options, credential=credential, environment=environment)
    await weights.ensure(options, shared)
    *services, gateway = plan(options, credential=credential, environment=environment)
    async with suite:
        # The models load while the database is prepared.
        suite.start(services)
        key = await identity.development_key(options.state, shared)
        suite.start([gateway])
        address = f"http://127.0.0.1:{options.ports['ATRIUM_GATEWAY_PORT']}"
        await _until_ready(suite, options, display, address=address)
        key = await identity.confirmed_key(key, options.state, shared, address=address)
        display.welcome(
            address=address,
            key=key,
            key_file=str(options.state / identity.KEY_FILE),
            services=options.services,
        )
        await suite.watch()


async def _until_ready(suite: Suite, options: Options, display: Display, *, address: str) -> None:
    loop = asyncio.get_running_loop()
    started = noted = loop.time()
    with display.progress("starting") as update:

        def on_wait(names: list[str]) -> None:
            nonlocal noted
            text = f"waiting for {', '.join(names)} ({loop.time() - started:.0f} s)"
            update(text)
            if not display.is_terminal and loop.time() - noted > _NOTE_EVERY_SECONDS:
                noted = loop.time()
                display.note(text)

        await suite.until_ready(seconds=options.start_seconds, on_wait=on_wait)
        update("waiting for the gateway to see the services")
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await until_served(address, options.services)
        except TimeoutError as err:
            raise LaunchError(
                f"the gateway does not reach the services, which are ready (see {address}/health)"
            ) from err
