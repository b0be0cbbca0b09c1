"""Makes audio files of every kind for the tests: encoded, damaged, silent, endless."""

import wave
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000

FORMATS = {
    "wav-8k": ("wav", "pcm_s16le", 8_000, "mono"),
    "wav-16k-stereo": ("wav", "pcm_s16le", 16_000, "stereo"),
    "wav-44k": ("wav", "pcm_s16le", 44_100, "mono"),
    "wav-48k-stereo": ("wav", "pcm_s16le", 48_000, "stereo"),
    "mp3": ("mp3", "libmp3lame", 44_100, "mono"),
    "ogg-opus": ("ogg", "libopus", 48_000, "mono"),
    "webm-opus": ("webm", "libopus", 48_000, "stereo"),
    "m4a-aac": ("mp4", "aac", 44_100, "mono"),
    "flac": ("flac", "flac", 16_000, "mono"),
}
"""Name -> container, codec, sample rate, layout."""


def tone(seconds: float, *, hertz: float = 440.0) -> NDArray[np.int16]:
    """Returns a tone at `RATE`."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def write_wav(path: Path, samples: NDArray[np.int16]) -> Path:
    """Writes 16-bit mono at `RATE`."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


def read_wav(path: Path) -> NDArray[np.int16]:
    """Reads 16-bit mono."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def encode(path: Path, samples: NDArray[np.int16], kind: str) -> Path:
    """Encodes samples of `RATE` in one of `FORMATS`."""
    container, codec, rate, layout = FORMATS[kind]
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)  # noqa: S101 - narrows the type
        resampler = av.AudioResampler(format="s16", layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for ready in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(ready))
        output.mux(stream.encode(None))
    return path


def bomb(path: Path, *, hours: float, container: str, codec: str) -> Path:
    """Writes hours of silence at 8 kHz; a few MB at most."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=8_000, layout="mono")
        assert isinstance(stream, av.AudioStream)  # noqa: S101 - narrows the type
        silence = np.zeros((1, 8_000 * 60), np.int16)
        for minute in range(int(hours * 60)):
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8_000, minute * silence.shape[1]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def hide_length(flac: Path) -> Path:
    """Takes the count of samples out of a FLAC file's header, so that it must be decoded."""
    data = bytearray(flac.read_bytes())
    # STREAMINFO begins at byte 8; its last 36 bits before the MD5 sum are the count.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    flac.write_bytes(data)
    return flac


def video_without_sound(path: Path) -> Path:
    """Writes ten pictures as MP4."""
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path
