"""Any audio file to 16 kHz mono, bounded in time and memory. The servicer calls this.

Decoding runs before a request waits for its engine: broken files never take a slot, and
the fair queue knows how long the audio really is.
"""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import av
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from atrium_common.errors import Cancelled, MediaError
from atrium_stt.recording import SAMPLE_RATE, AudioLimits, Recording
from atrium_stt.sniff import name_format

# Playlists (HLS, DASH, concat, SDP) are missing on purpose: they make FFmpeg open other
# files and addresses. Picture formats are missing because they hold no sound.
_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,gsm,loas,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,ogg,rm,tak,tta,w64,wav,wv"
)
# Of these, the length stands in the file and holds. A WAV that was written to a pipe
# claims 37 hours, and an MP3's length is a guess.
_DECLARES_LENGTH = frozenset({"ogg", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"})
_RATES = range(1_000, 768_001)
_GROUP_SECONDS = 5
_ROUNDING = 1e-3
_BARE_HEADER_BYTES = 4096
_FIELD = "audio"


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
        MediaError: The file is empty, unknown, corrupt, without sound or too long; the
            reason is one of ``AUDIO_EMPTY``, ``AUDIO_FORMAT_UNKNOWN``, ``AUDIO_CORRUPT``,
            ``AUDIO_TRACK_MISSING`` and ``AUDIO_TOO_LONG``.
        Cancelled: `cancelled` said so.
    """
    if path.stat().st_size == 0:
        raise _empty()
    spool: IO[bytes] = tempfile.TemporaryFile(dir=limits.directory)  # noqa: SIM115 - kept open
    try:
        with contextlib.closing(_open(path)) as container:
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                raise MediaError(
                    "The file has no audio track.", reason="AUDIO_TRACK_MISSING", field=_FIELD
                )
            _refuse_declared_length(container, stream, limits)
            packets = _Packets(container, stream, limits, cancelled)
            for samples in _resampled(packets.frames()):
                spool.write(samples)
            packets.refuse_corrupt(format_name=name_format(path))
            if spool.tell() == 0:
                raise _silent_file(path)
        spool.flush()
        return Recording(spool)
    except BaseException:
        spool.close()
        raise


async def open_recording(
    audio: "Path | Recording", *, limits: AudioLimits | None = None
) -> Recording:
    """Decodes a file in a thread of its own; a `Recording` is returned as it is.

    A caller that is cancelled stops the decoding at its next packet.
    """
    if isinstance(audio, Recording):
        return audio
    left = threading.Event()
    work = asyncio.create_task(
        asyncio.to_thread(decode, audio, limits=limits or AudioLimits(), cancelled=left.is_set)
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        left.set()
        # The thread must be out of the file before the caller deletes it.
        with contextlib.suppress(Cancelled, MediaError):
            (await work).close()
        raise


class _Packets:
    """Decodes packet by packet, past damaged ones, and counts both kinds."""

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        limits: AudioLimits,
        cancelled: Callable[[], bool],
    ) -> None:
        self._container = container
        self._stream = stream
        self._limits = limits
        self._cancelled = cancelled
        self._good = 0
        self._bad = 0

    def frames(self) -> Iterator[AudioFrame]:
        """Yields the frames; stops with an error at the limit, before it is exceeded."""
        seconds = 0.0
        for frame in self._decoded():
            if frame.sample_rate not in _RATES:
                raise MediaError(
                    f"A sample rate of {frame.sample_rate} Hz is not supported.",
                    reason="AUDIO_FORMAT_UNKNOWN",
                    field=_FIELD,
                )
            seconds += frame.samples / frame.sample_rate
            if seconds > self._limits.duration.total_seconds() + _ROUNDING:
                raise _too_long(self._limits)
            yield frame

    def _decoded(self) -> Iterator[AudioFrame]:
        demuxed = self._container.demux(self._stream)
        while True:
            if self._cancelled():
                raise Cancelled("The caller left.")
            try:
                packet = next(demuxed)
                frames = packet.decode()
            except StopIteration:
                return
            except EOFError:
                continue
            except (av.FFmpegError, ValueError):
                self._bad += 1
                if self._bad > self._good + 100:
                    return
                continue
            self._good += bool(frames)
            for frame in frames:
                if isinstance(frame, AudioFrame) and frame.samples:
                    yield frame

    def refuse_corrupt(self, *, format_name: str | None) -> None:
        """Raises `MediaError` if more of the audio was damaged than sound."""
        if self._bad > self._good:
            raise MediaError(
                f"The {format_name or 'audio'} file is corrupt.",
                reason="AUDIO_CORRUPT",
                field=_FIELD,
            )


def _open(path: Path) -> InputContainer:
    known = name_format(path)
    try:
        return av.open(
            f"file:{path}",
            mode="r",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
            metadata_errors="ignore",
        )
    except (av.FFmpegError, ValueError) as err:
        if known is None:
            raise MediaError(
                "The upload is in no known audio format.",
                reason="AUDIO_FORMAT_UNKNOWN",
                field=_FIELD,
            ) from err
        raise MediaError(
            f"The {known} file is corrupt.", reason="AUDIO_CORRUPT", field=_FIELD
        ) from err


def _refuse_declared_length(
    container: InputContainer, stream: AudioStream, limits: AudioLimits
) -> None:
    """Refuses a file that says itself that it is too long, without decoding it."""
    if container.format.name not in _DECLARES_LENGTH:
        return
    seconds = 0.0
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    if seconds > limits.duration.total_seconds():
        raise _too_long(limits)


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[bytes]:
    """Groups frames (one at a time is slow) and turns them into 16 kHz mono samples."""
    kind: tuple[str, str, int] | None = None
    fifo, resampler = AudioFifo(), _resampler()
    for frame in frames:
        this = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind is not None and this != kind:  # chained streams may change in the middle
            yield from _drain(fifo, resampler)
            fifo, resampler = AudioFifo(), _resampler()
        kind = this
        frame.pts = None  # gaps and jumps are left out, as Whisper's own loader does
        fifo.write(frame)
        if fifo.samples >= _GROUP_SECONDS * frame.sample_rate:
            yield from _converted(resampler, fifo.read())
    if kind is not None:
        yield from _drain(fifo, resampler)


def _drain(fifo: AudioFifo, resampler: AudioResampler) -> Iterator[bytes]:
    if fifo.samples:
        yield from _converted(resampler, fifo.read())
    yield from _converted(resampler, None)


def _converted(resampler: AudioResampler, frame: AudioFrame | None) -> Iterator[bytes]:
    for out in resampler.resample(frame):
        yield out.to_ndarray().tobytes()


def _resampler() -> AudioResampler:
    return AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)


def _silent_file(path: Path) -> MediaError:
    """Tells a bare header from a file whose content is no audio behind a good header."""
    if path.stat().st_size <= _BARE_HEADER_BYTES:
        return _empty()
    return MediaError(
        f"The {name_format(path) or 'audio'} file is corrupt.", reason="AUDIO_CORRUPT", field=_FIELD
    )


def _empty() -> MediaError:
    return MediaError("The audio is empty.", reason="AUDIO_EMPTY", field=_FIELD)


def _too_long(limits: AudioLimits) -> MediaError:
    return MediaError(
        f"The audio is longer than {limits.duration.total_seconds():.0f} s.",
        reason="AUDIO_TOO_LONG",
        field=_FIELD,
    )
