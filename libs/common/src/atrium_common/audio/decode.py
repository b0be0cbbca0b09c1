"""Decodes any audio file to mono samples, bounded in time and memory.

Services call this before a request waits for its engine: broken files never take a slot,
and the fair queue knows how long the audio really is.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import av
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from atrium_common.audio.sniff import name_format
from atrium_common.errors import Cancelled, MediaError

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimit:
    """What is decoded at most.

    Attributes:
        duration: Longest audio.
        field: Names the upload in errors.
    """

    duration: timedelta
    field: str = "audio"

    def error(self, message: str, reason: str) -> MediaError:
        """Makes the refusal of an upload."""
        return MediaError(message, reason=reason, field=self.field)


def decode(
    path: Path,
    *,
    sample_rate: int,
    limit: AudioLimit,
    write: Callable[[bytes], object],
    cancelled: Callable[[], bool] = lambda: False,
) -> int:
    """Decodes the audio of a file of any common container and codec.

    Blocks: seconds per hour of audio, more for Opus than for MP3.

    Args:
        path: The file; its name and ending do not matter.
        sample_rate: Samples per second to give, in Hz.
        limit: What is decoded at most.
        write: Takes 16-bit mono samples in the machine's byte order, piece by piece.
        cancelled: Asked for every packet.

    Returns:
        The number of samples that were written, 1 or more.

    Raises:
        MediaError: The file is empty, unknown, corrupt, without sound or too long; the
            reason is one of ``AUDIO_EMPTY``, ``AUDIO_FORMAT_UNKNOWN``, ``AUDIO_CORRUPT``,
            ``AUDIO_TRACK_MISSING`` and ``AUDIO_TOO_LONG``.
        Cancelled: `cancelled` said so.
    """
    if path.stat().st_size == 0:
        raise limit.error("The audio is empty.", "AUDIO_EMPTY")
    with contextlib.closing(_open(path, limit)) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise limit.error("The file has no audio track.", "AUDIO_TRACK_MISSING")
        _refuse_declared_length(container, stream, limit)
        packets = _Packets(container, stream, limit, cancelled)
        count = 0
        for samples in _resampled(packets.frames(), sample_rate):
            write(samples)
            count += len(samples) // 2
        packets.refuse_corrupt(format_name=name_format(path))
    if not count:
        raise _silent_file(path, limit)
    return count


async def decoded(
    work: Callable[[Callable[[], bool]], T], *, discard: Callable[[T], object] = lambda _: None
) -> T:
    """Runs decoding in a thread; a caller that is cancelled stops it at its next packet.

    Args:
        work: Decodes; is given what to pass on as `cancelled`.
        discard: Frees the result of work that ended although its caller had left.
    """
    left = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(work, left.is_set))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        left.set()
        # The thread must be out of the file before the caller deletes it.
        with contextlib.suppress(Cancelled, MediaError):
            discard(await running)
        raise


class _Packets:
    """Decodes packet by packet, past damaged ones, and counts both kinds."""

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        limit: AudioLimit,
        cancelled: Callable[[], bool],
    ) -> None:
        self._container = container
        self._stream = stream
        self._limit = limit
        self._cancelled = cancelled
        self._good = 0
        self._bad = 0

    def frames(self) -> Iterator[AudioFrame]:
        """Yields the frames; stops with an error at the limit, before it is exceeded."""
        seconds = 0.0
        for frame in self._decoded():
            if frame.sample_rate not in _RATES:
                raise self._limit.error(
                    f"A sample rate of {frame.sample_rate} Hz is not supported.",
                    "AUDIO_FORMAT_UNKNOWN",
                )
            seconds += frame.samples / frame.sample_rate
            if seconds > self._limit.duration.total_seconds() + _ROUNDING:
                raise _too_long(self._limit)
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
            raise self._limit.error(
                f"The {format_name or 'audio'} file is corrupt.", "AUDIO_CORRUPT"
            )


def _open(path: Path, limit: AudioLimit) -> InputContainer:
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
            raise limit.error(
                "The upload is in no known audio format.", "AUDIO_FORMAT_UNKNOWN"
            ) from err
        raise limit.error(f"The {known} file is corrupt.", "AUDIO_CORRUPT") from err


def _refuse_declared_length(
    container: InputContainer, stream: AudioStream, limit: AudioLimit
) -> None:
    """Refuses a file that says itself that it is too long, without decoding it."""
    if container.format.name not in _DECLARES_LENGTH:
        return
    seconds = 0.0
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    if seconds > limit.duration.total_seconds():
        raise _too_long(limit)


def _resampled(frames: Iterator[AudioFrame], rate: int) -> Iterator[bytes]:
    """Groups frames (one at a time is slow) and turns them into 16-bit mono samples."""
    kind: tuple[str, str, int] | None = None
    fifo, resampler = AudioFifo(), _resampler(rate)
    for frame in frames:
        this = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind is not None and this != kind:  # chained streams may change in the middle
            yield from _drain(fifo, resampler)
            fifo, resampler = AudioFifo(), _resampler(rate)
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


def _resampler(rate: int) -> AudioResampler:
    return AudioResampler(format="s16", layout="mono", rate=rate)


def _silent_file(path: Path, limit: AudioLimit) -> MediaError:
    """Tells a bare header from a file whose content is no audio behind a good header."""
    if path.stat().st_size <= _BARE_HEADER_BYTES:
        return limit.error("The audio is empty.", "AUDIO_EMPTY")
    return limit.error(f"The {name_format(path) or 'audio'} file is corrupt.", "AUDIO_CORRUPT")


def _too_long(limit: AudioLimit) -> MediaError:
    return limit.error(
        f"The audio is longer than {limit.duration.total_seconds():.0f} s.", "AUDIO_TOO_LONG"
    )
