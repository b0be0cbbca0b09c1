"""Finds a service's engines by name, and imports an engine's libraries only when it is used.

Each service's `engines/__init__.py` has a table ``name -> "module:Class"`` and calls these.
"""

import importlib
from collections.abc import Mapping, Sequence

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.weights import WeightStore


def make_engine(
    table: Mapping[str, str],
    service: str,
    name: str,
    entries: Sequence[ModelEntry],
    *,
    store: WeightStore,
    **more: object,
) -> object:
    """Imports an engine and makes it for its models; loads nothing yet.

    Args:
        table: Registry name -> ``"module:Class"``; the class takes `(entries, *, store)`.
        service: Name of the service, for the advice on what to install.
        name: The engine.
        entries: Its models; at least one.
        store: The weights.
        **more: Further keywords that every engine of the table takes, e.g. `adapters`.

    Raises:
        CatalogueError: No such engine, its libraries are not installed, or an option
            of a model does not hold.
    """
    first = entries[0].id
    target = table.get(name)
    if target is None:
        raise CatalogueError(f"{first}: no engine {name!r}; known: {', '.join(table)}")
    module, _, attribute = target.partition(":")
    try:
        engine_class = getattr(importlib.import_module(module), attribute)
        made: object = engine_class(entries, store=store, **more)
    except ModuleNotFoundError as error:
        raise CatalogueError(
            f"{first}: the engine {name!r} needs {error.name!r}; install atrium-{service}[{name}]"
        ) from error
    return made


def by_engine(entries: Sequence[ModelEntry], service: str) -> dict[str, list[ModelEntry]]:
    """Groups a service's entries by engine, in catalogue order.

    Raises:
        CatalogueError: There are none.
    """
    if not entries:
        raise CatalogueError(f"the catalogue names no model for the service {service}")
    groups: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.engine, []).append(entry)
    return groups


def with_engine(entries: Sequence[ModelEntry], engine: str | None) -> list[ModelEntry]:
    """Returns the entries, served by `engine` instead of their own where it is given.

    Options are an engine's own, so those of an entry whose engine changes are dropped.
    """
    return [
        entry
        if engine in (None, entry.engine)
        else entry.model_copy(update={"engine": engine, "options": {}})
        for entry in entries
    ]
