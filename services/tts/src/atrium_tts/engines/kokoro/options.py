"""What a catalogue entry may say about a Kokoro model; unknown options are refused."""

from typing import Self

from pydantic import Field

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.engine_options import EngineOptions, read_options
from atrium_common.processors import processors


class KokoroOptions(EngineOptions):
    """Options of the engine `kokoro`, with their defaults."""

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
        return read_options(cls, entry)

    @property
    def threads_to_use(self) -> int:
        """Threads to run with, 1 or more."""
        return self.threads or processors()
