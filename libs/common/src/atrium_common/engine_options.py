"""How an engine reads the `options` of a catalogue entry: strictly, with one clear line."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from atrium_common.catalogue import CatalogueError, ModelEntry


class EngineOptions(BaseModel):
    """Base of every engine's options; an unknown or misspelt one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


OptionsT = TypeVar("OptionsT", bound=EngineOptions)


def read_options(options: type[OptionsT], entry: ModelEntry) -> OptionsT:
    """Reads the options of a model.

    Raises:
        CatalogueError: One is unknown or out of its range; the message names it.
    """
    given: Mapping[str, object] = entry.options
    try:
        return options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CatalogueError(f"{entry.id}: options.{where}: {first['msg']}") from error
