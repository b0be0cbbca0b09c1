"""Which tests share a worker where pytest runs several at once, as `make test` does.

Those of one package (`services/tts`, `tests/e2e`) stay together, in their order: they share
what takes long to make, such as a loaded model or the running suite. The gateway's are a third
of all: its folders (`services/gateway/tests/rest`) may go to different workers.
"""

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_PACKAGE_DEPTH = 2
"""Folders that name a package: ``services/tts``."""
_GATEWAY = "services/gateway/"
_GATEWAY_DEPTH = 4


def pytest_collection_finish() -> None:
    """Leaves the tests and all that they import out of later rounds of the cycle collector.

    Looking at a million objects takes most of a second, and each model that a test loads or
    unloads asks for such a round.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)  # vLLM's environment has no xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling":
    """Hands out tests by package."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPackage(LoadScopeScheduling):
        """Each package is a scope."""

        def _split_scope(self, nodeid: str) -> str:
            depth = _GATEWAY_DEPTH if nodeid.startswith(_GATEWAY) else _PACKAGE_DEPTH
            file, _, _ = nodeid.partition("::")
            return "/".join(file.split("/")[:-1][:depth])

    return ByPackage(config, log)
