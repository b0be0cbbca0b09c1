"""What a catalogue entry may say about an XTTS model; unknown options are refused."""

from typing import Literal, Self

from pydantic import Field

from atrium_common.catalogue import CatalogueError, ModelEntry
from atrium_common.engine_options import EngineOptions, read_options

DTYPES = ("float32", "float16", "bfloat16")
"""What an entry's `dtype` may be; the vocoder always runs in float32."""


class XttsOptions(EngineOptions):
    """Options of the engine `xtts`, with their defaults."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; ``auto`` takes a GPU if there is one."""

    device_index: int = Field(default=0, ge=0)
    """Which GPU."""

    threads: int = Field(default=0, ge=0)
    """Threads on a CPU; 0 leaves it to torch, within the container's limit. It holds for the
    whole process."""

    stream_chunk_size: int = Field(default=20, ge=4, le=200)
    """Audio tokens per piece, 46 ms each: smaller is heard earlier and costs more."""

    temperature: float | None = Field(default=None, gt=0, le=2)
    """Liveliness where a request names none; unset takes the checkpoint's own."""

    top_k: int | None = Field(default=None, ge=1)
    """Candidates per token; unset takes the checkpoint's own."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """Probability that the candidates cover; unset takes the checkpoint's own."""

    repetition_penalty: float | None = Field(default=None, ge=1)
    """Keeps it from dwelling on a sound; unset takes the checkpoint's own."""

    cached_voices: int = Field(default=64, ge=1)
    """Cloned voices that stay on the device, the latest used; each takes about 0.2 MB."""

    @classmethod
    def of(cls, entry: ModelEntry) -> Self:
        """Reads an entry's options.

        Raises:
            CatalogueError: An option or the entry's `dtype` is unknown or out of range.
        """
        if entry.dtype is not None and entry.dtype not in DTYPES:
            raise CatalogueError(
                f"{entry.id}: dtype: {entry.dtype!r} is not one of {', '.join(DTYPES)}"
            )
        return read_options(cls, entry)
