"""Asks a process over HTTP whether it is ready; the keeper and `main.py` use it."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Collection

_TIMEOUT_SECONDS = 2.0
_INTERVAL_SECONDS = 0.2
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def until_ready(url: str) -> None:
    """Returns when `url` answers 200; runs until then."""
    while await asyncio.to_thread(status_of, url) != 200:  # noqa: ASYNC110  another process
        await asyncio.sleep(_INTERVAL_SECONDS)


async def until_served(address: str, services: Collection[str]) -> None:
    """Returns when the gateway at `address` sees all of `services` ready; runs until then."""
    while not set(services) <= await asyncio.to_thread(_ready_services, address):  # noqa: ASYNC110
        await asyncio.sleep(_INTERVAL_SECONDS)


def _ready_services(address: str) -> set[str]:
    try:
        with _direct.open(f"{address}/health", timeout=_TIMEOUT_SECONDS) as answer:
            body = answer.read()
    except urllib.error.HTTPError as err:  # 503: some service is down, maybe not one of ours
        with err:
            body = err.read()
    except OSError:
        return set()
    states = json.loads(body)["services"]
    return {name for name, state in states.items() if state["status"] == "ready"}


def status_of(url: str, *, token: str | None = None) -> int | None:
    """The HTTP status that `url` (on this machine) answers with; ``None`` if nobody answers."""
    request = urllib.request.Request(url)  # noqa: S310  made from our own ports
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with _direct.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        err.close()
        return err.code
    except OSError:  # refused, reset or timed out: not up yet
        return None
