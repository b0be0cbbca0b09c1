"""One gateway of several, for `test_replica_crowd.py`: admission on a port, until stdin ends.

Run as ``python replica_process.py FOLDER REDIS_URL UNIX_SECONDS``; its clock stands still then,
or runs, where that is ``running``. Either way Redis is told the time with each call.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from atrium_common.catalogue import Catalogue
from atrium_gateway.admission_server import serving_admission
from atrium_gateway.core import open_core
from atrium_gateway.settings import GatewaySettings

CATALOGUE = Catalogue.model_validate(
    {
        "models": [
            {
                "id": "m",
                "service": "llm",
                "capabilities": ["chat"],
                "engine": "fake",
                # Four millionths for the work that is asked for there.
                "price": {"image": "0.000002"},
            }
        ]
    }
)


async def serve(folder: Path, url: str, clock: Callable[[], float]) -> None:
    settings = GatewaySettings(
        state_dir=folder,
        quota_redis_url=url,
        quota_timeout_seconds=5,
        default_limit=None,
        service_credential="a service credential",
        admission_port=0,
    )
    async with (
        open_core(settings, catalogue=CATALOGUE, clock=clock) as core,
        serving_admission(core, settings) as port,
    ):
        print(port, flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
        print(core.admission.open_reservations, flush=True)  # noqa: T201


if __name__ == "__main__":
    # Standard output is for the test, which reads it only at the end.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    _, where, address, moment = sys.argv
    told = (lambda: time.time()) if moment == "running" else (lambda: float(moment))
    asyncio.run(serve(Path(where), address, told))
