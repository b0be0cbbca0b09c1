"""Raw PCM of a provider as samples; `engines/openai.py` reads each body with one."""

import numpy as np

from atrium_tts.engines.base import Samples

_FULL_SCALE = 32_768.0

_CONTAINERS = (b"RIFF", b"OggS", b"fLaC", b"ID3")
"""How a body begins that is no raw PCM, whatever its header says; it would be noise."""


class PcmReader:
    """Reads 16-bit little-endian mono PCM that may be cut anywhere, even inside a sample."""

    def __init__(self) -> None:
        self._rest = b""
        self._read = 0

    @property
    def complete(self) -> bool:
        """True if there was audio and its last sample is whole."""
        return self._read > 0 and not self._rest

    def read(self, data: bytes) -> Samples:
        """Takes the next bytes and returns the samples that are whole; maybe none.

        Raises:
            ValueError: The body begins like a file of another format.
        """
        if not self._read and (self._rest + data).startswith(_CONTAINERS):
            raise ValueError("the audio is no raw PCM")
        data = self._rest + data
        whole = len(data) - len(data) % 2
        self._rest = data[whole:]
        self._read += whole
        samples = np.frombuffer(data[:whole], dtype="<i2").astype(np.float32)
        samples /= _FULL_SCALE
        return samples


def is_audio(content_type: str) -> bool:
    """True if a body may be raw PCM: a provider that fails may answer 200 with a page.

    Args:
        content_type: As in the header; empty if there was none.
    """
    kind = content_type.split(";")[0].strip().lower()
    return kind == "" or kind.startswith("audio/") or kind.endswith("/octet-stream")
