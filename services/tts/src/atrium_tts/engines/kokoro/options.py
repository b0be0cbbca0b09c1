"""What a catalogue entry may say about a Kokoro model; unknown options are refused."""

import os
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atrium_common.catalogue import CatalogueError, ModelEntry


class KokoroOptions(BaseModel):
    """Options of the engine `kokoro`, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int = Field(default=0, ge=0)
    """Threads of one utterance; 0 takes every core that this process may use."""

    @classmethod
    def of(cls, entry: ModelEntry) -> Self:
        """Reads an entry's options.

        Raises:
            CatalogueError: An option is unknown or out of its range, or the entry asks
                for a numeric type: the weights' file alone decides that.
        """
        if entry.dtype is not None:
            raise CatalogueError(f"{entry.id}: dtype: the file of the weights decides it")
        try:
            return cls.model_validate(entry.options)
        except ValidationError as err:
            first = err.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CatalogueError(f"{entry.id}: options.{where}: {first['msg']}") from err

    @property
    def threads_to_use(self) -> int:
        """Threads to run with, 1 or more."""
        return self.threads or len(os.sched_getaffinity(0))
