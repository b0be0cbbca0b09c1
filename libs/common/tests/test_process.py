"""A service's process ends when it is told to, whatever its threads still do."""

import asyncio
import os
import signal
import sys

import pytest

_LOADING = """
import asyncio, atexit, time
from atrium_common.process import run_service
from atrium_common.server import serve
from atrium_common.settings import ServiceSettings
from atrium_common.testing.echo import EchoEngine, EchoServicer
from atrium_common.work import DeviceThread

class Engine(EchoEngine):
    def __init__(self):
        super().__init__()
        self.device = DeviceThread()

    async def load(self):
        print("loading", flush=True)
        await asyncio.gather(asyncio.to_thread(time.sleep, 600), self.device.call(time.sleep, 600))

    async def close(self):
        self.device.close(timeout=0.1)
        print("closed")

async def main():
    await serve(EchoServicer(), Engine(), ServiceSettings(port=0, metrics_port=0))

atexit.register(print, "left")
run_service(main())
"""


async def _start(program: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        stdout=pipe,
        stderr=pipe,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )


async def test_a_service_that_is_stopped_while_it_loads_does_not_wait_for_the_model() -> None:
    process = await _start(_LOADING)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"loading\n"
    process.terminate()
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert out == b"closed\nleft\n"
    assert b'"stopped"' in err.splitlines()[-1]


_FAILING = """
from atrium_common.process import run_service

async def main():
    print("began")
    raise RuntimeError("the engine did not load")

run_service(main())
"""

_INTERRUPTED = """
import asyncio, os, signal
from atrium_common.process import run_service

async def stubborn():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            print("no")

async def main():
    staying = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, print, "draining")
    loop.remove_signal_handler(signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    await staying

run_service(main())
"""


@pytest.mark.parametrize(
    ("program", "status", "out", "last"),
    [
        (_FAILING, 1, b"began\n", b"RuntimeError: the engine did not load"),
        (_INTERRUPTED, 128 + signal.SIGINT, b"", b""),
    ],
    ids=["what failed is told", "a second Ctrl-C ends it at once"],
)
async def test_the_exit_status_says_how_it_ended(
    program: str, status: int, out: bytes, last: bytes
) -> None:
    process = await _start(program)
    told, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, told) == (status, out), err.decode()
    assert err.rstrip().rpartition(b"\n")[2] == last
