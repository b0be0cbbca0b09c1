"""Any audio file to 16 kHz mono in a spool file. The servicer calls this.

Decoding runs before a request waits for its engine: broken files never take a slot, and
the fair queue knows how long the audio really is.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from atrium_common import audio
from atrium_stt.recording import SAMPLE_RATE, AudioLimits, Recording


def decode(
    path: Path, *, limits: AudioLimits, cancelled: Callable[[], bool] = lambda: False
) -> Recording:
    """Decodes the audio of a file of any common container and codec.

    Blocks: seconds per hour of audio, more for Opus than for MP3.

    Args:
        path: The file; its name and ending do not matter.
        limits: What is decoded at most.
        cancelled: Asked for every packet.

    Raises:
        MediaError: See `atrium_common.audio.decode`.
        Cancelled: `cancelled` said so.
    """
    spool: IO[bytes] = tempfile.TemporaryFile(dir=limits.directory)  # noqa: SIM115 - kept open
    try:
        audio.decode(
            path,
            sample_rate=SAMPLE_RATE,
            limit=audio.AudioLimit(duration=limits.duration),
            write=spool.write,
            cancelled=cancelled,
        )
        spool.flush()
        return Recording(spool)
    except BaseException:
        spool.close()
        raise


async def open_recording(
    source: "Path | Recording", *, limits: AudioLimits | None = None
) -> Recording:
    """Decodes a file in a thread of its own; a `Recording` is returned as it is.

    A caller that is cancelled stops the decoding at its next packet.
    """
    if isinstance(source, Recording):
        return source
    return await audio.decoded(
        lambda cancelled: decode(source, limits=limits or AudioLimits(), cancelled=cancelled),
        discard=Recording.close,
    )
