"""What a catalogue entry may say about a faster-whisper model; unknown options are refused."""

from typing import Literal

from pydantic import Field

from atrium_common.engine_options import EngineOptions
from atrium_common.processors import processors


class FasterWhisperOptions(EngineOptions):
    """Options of the engine `faster-whisper`, with their defaults."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; ``auto`` takes a GPU if there is one."""

    device_index: int = Field(default=0, ge=0)
    """Which GPU."""

    cpu_threads: int = Field(default=0, ge=0)
    """Threads on a CPU; 0 takes every core that this process may use."""

    batch_size: int = Field(default=0, ge=0)
    """Windows decoded together in a long recording; 0 takes 4 on a CPU, 16 on a GPU."""

    batch_from_seconds: float = Field(default=60.0, ge=0)
    """Recordings longer than this are decoded in batches."""

    translates: bool | None = None
    """False for a multilingual model that was not trained to translate (large-v3-turbo);
    unset takes what the model's vocabulary says."""

    @property
    def threads(self) -> int:
        """Threads to run with, 1 or more."""
        return self.cpu_threads or processors()

    def windows(self, device: str) -> int:
        """Windows decoded together on `device` (``"cpu"`` or ``"cuda"``), 1 or more."""
        return self.batch_size or (16 if device == "cuda" else 4)
