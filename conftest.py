"""Which tests share a worker where pytest runs several at once, as `make test` does.

Those of one package (`services/tts`, `tests/e2e`) stay together, in their order: they share
what takes long to make, such as a loaded model or the running suite.
"""

import pytest

_PACKAGE_DEPTH = 2
"""Folders that name a package: ``services/tts``."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Names each test's group for ``pytest -n 2 --dist loadgroup``."""
    if not config.pluginmanager.hasplugin("xdist"):  # vLLM's environment has none
        return
    for item in items:
        folders = item.path.relative_to(config.rootpath).parts[:_PACKAGE_DEPTH]
        item.add_marker(pytest.mark.xdist_group("/".join(folders)))
