"""Encodes speech while it is being made: samples in, bytes of one file out.

`speech_output.py` calls this, in a thread. The bytes of all calls together are one file;
the first of them leave right after the first samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer

from atrium_common.errors import InvalidArgument
from atrium_tts.domain import AudioFormat
from atrium_tts.engines.base import Samples

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Hz."""

MIN_BIT_RATE, MAX_BIT_RATE = 16_000, 320_000
"""Bits per second."""

# The rates that MPEG audio has a code for.
_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class _Codec:
    """How a format is written.

    Attributes:
        content_type: Media type.
        name: FFmpeg's encoder; ``""`` for bare samples.
        container: FFmpeg's muxer.
        options: Of the muxer.
        encoder_options: Of the encoder.
        sample_format: Of the encoder.
        rates: Sample rates that it takes; empty for all.
        bit_rate: Default; 0 where it has none.
    """

    content_type: str
    name: str = ""
    container: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    sample_format: str = "s16"
    rates: tuple[int, ...] = ()
    bit_rate: int = 0


# Each packet leaves at once, in pages of 20 ms for Ogg; what needs to go back to the
# file's beginning at its end (an MP3's Xing frame) is left out.
_CODECS = {
    AudioFormat.MP3: _Codec(
        "audio/mpeg",
        name="libmp3lame",
        container="mp3",
        options={"write_xing": "0"},
        encoder_options={"compression_level": "7"},  # speech needs no finer psychoacoustics
        sample_format="fltp",
        rates=_MPEG_RATES,
        bit_rate=64_000,
    ),
    AudioFormat.OPUS: _Codec(
        "audio/ogg",
        name="libopus",
        container="ogg",
        options={"page_duration": "20000"},
        encoder_options={"vbr": "constrained"},
        sample_format="flt",
        rates=(24_000, 48_000),
        bit_rate=48_000,
    ),
    AudioFormat.AAC: _Codec(
        "audio/aac",
        name="aac",
        container="adts",
        sample_format="fltp",
        rates=_MPEG_RATES,
        bit_rate=64_000,
    ),
    AudioFormat.FLAC: _Codec("audio/flac", name="flac", container="flac"),
    AudioFormat.WAV: _Codec("audio/wav"),
    AudioFormat.PCM: _Codec("audio/pcm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a speech is encoded, with everything settled.

    Attributes:
        format: Container and codec.
        sample_rate: Hz.
        bit_rate: Bits per second; 0 for formats that have none. MP3 takes the nearest
            step of its table.
    """

    format: AudioFormat
    sample_rate: int
    bit_rate: int

    @property
    def content_type(self) -> str:
        """Media type, e.g. ``"audio/mpeg"``."""
        return _CODECS[self.format].content_type


def settle(
    audio_format: AudioFormat, *, sample_rate: int, bit_rate: int | None, own_rate: int
) -> Encoding:
    """Fills in what was left open.

    Args:
        audio_format: Container and codec.
        sample_rate: Hz as asked for; 0 takes `own_rate`, or the next that the format takes.
        bit_rate: Bits per second as asked for; ``None`` takes the format's default.
        own_rate: Hz of what the model gives.

    Raises:
        InvalidArgument: The format does not take it; `field` is ``"sample_rate"`` or
            ``"bit_rate"``.
    """
    rate = _rate(audio_format, sample_rate, own_rate)
    codec = _CODECS[audio_format]
    if bit_rate is None:
        lowest, highest = _bit_rates(audio_format, rate)
        return Encoding(
            format=audio_format,
            sample_rate=rate,
            bit_rate=min(max(codec.bit_rate, lowest), highest),
        )
    if not codec.bit_rate:
        raise InvalidArgument(f"{audio_format} has no bit rate.", field="bit_rate")
    lowest, highest = _bit_rates(audio_format, rate)
    if not lowest <= bit_rate <= highest:
        raise InvalidArgument(
            f"bit_rate is from {lowest} to {highest} for {audio_format} of {rate} Hz.",
            field="bit_rate",
        )
    return Encoding(format=audio_format, sample_rate=rate, bit_rate=bit_rate)


def _rate(audio_format: AudioFormat, asked: int, own: int) -> int:
    taken = _CODECS[audio_format].rates
    if asked:
        if not MIN_RATE <= asked <= MAX_RATE:
            raise InvalidArgument(
                f"sample_rate is from {MIN_RATE} to {MAX_RATE}.", field="sample_rate"
            )
        if taken and asked not in taken:
            names = ", ".join(map(str, taken))
            raise InvalidArgument(
                f"{audio_format} takes a sample_rate of {names}.", field="sample_rate"
            )
        return asked
    own = min(max(own, MIN_RATE), MAX_RATE)
    return next((rate for rate in taken if rate >= own), own)


def _bit_rates(audio_format: AudioFormat, rate: int) -> tuple[int, int]:
    """Returns the least and most bits per second of one channel at a sample rate."""
    if audio_format is AudioFormat.MP3:  # ISO 11172-3 and 13818-3, and Fraunhofer's MPEG 2.5
        if rate >= 32_000:
            return 32_000, 320_000
        return MIN_BIT_RATE, 160_000 if rate >= 16_000 else 64_000
    if audio_format is AudioFormat.AAC:  # 6144 bits in a frame of 1024 samples
        return MIN_BIT_RATE, min(6 * rate, MAX_BIT_RATE)
    if audio_format is AudioFormat.OPUS:  # of libopus, for one channel
        return MIN_BIT_RATE, 256_000
    return 0, 0


class StreamEncoder:
    """Encodes one file. Blocks; one thread at a time may use it."""

    def __init__(self, encoding: Encoding, *, input_rate: int) -> None:
        """Opens the encoder.

        Args:
            encoding: What to write.
            input_rate: Samples per second of what `encode` is given.
        """
        self._input_rate = input_rate
        codec = _CODECS[encoding.format]
        self._writer: _Bare | _Muxed
        if codec.name:
            self._writer = _Muxed(encoding, codec)
        else:
            self._writer = _Bare(encoding)

    def encode(self, samples: Samples) -> bytes:
        """Takes samples and returns the bytes that are ready, which may be none."""
        if not len(samples):
            return b""
        finite = np.nan_to_num(samples.astype(np.float32, copy=False))
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(np.clip(finite, -1.0, 1.0)[None]), format="flt", layout="mono"
        )
        frame.sample_rate = self._input_rate
        return self._writer.write(frame)

    def finish(self) -> bytes:
        """Returns the last bytes; nothing may be encoded afterwards."""
        return self._writer.finish()

    def close(self) -> None:
        """Frees the encoder. May be called twice, and without `finish`."""
        self._writer.close()


class _Bare:
    """16-bit samples, behind a WAV header or alone."""

    def __init__(self, encoding: Encoding) -> None:
        self._resampler = AudioResampler(format="s16", layout="mono", rate=encoding.sample_rate)
        wav = encoding.format is AudioFormat.WAV
        self._head = _wav_header(encoding.sample_rate) if wav else b""
        self._begun = False

    def write(self, frame: AudioFrame | None) -> bytes:
        head, self._head = self._head, b""
        self._begun = self._begun or frame is not None
        if not self._begun:
            return head  # a resampler that was never fed can't be flushed
        frames = self._resampler.resample(frame)
        return head + b"".join(ready.to_ndarray().tobytes() for ready in frames)

    def finish(self) -> bytes:
        return self.write(None)

    def close(self) -> None:
        pass


class _Muxed:
    """What FFmpeg encodes and puts into a container."""

    def __init__(self, encoding: Encoding, codec: _Codec) -> None:
        self._sink = _Sink()
        options = {"flush_packets": "1", **codec.options}
        self._container: OutputContainer = av.open(
            self._sink, "w", format=codec.container, options=options
        )
        stream = self._container.add_stream(
            codec.name,
            rate=encoding.sample_rate,
            options=dict(codec.encoder_options),
            layout="mono",
            format=codec.sample_format,
        )
        self._stream = cast("AudioStream", stream)
        if encoding.bit_rate:
            self._stream.bit_rate = encoding.bit_rate
        self._closed = False

    def write(self, frame: AudioFrame | None) -> bytes:
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        last = self.write(None)
        self.close()
        return last + self._sink.take()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._container.close()


class _Sink:
    """What PyAV writes to; it can't seek, so nothing is written twice."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def _wav_header(rate: int) -> bytes:
    """Returns a header for 16-bit mono whose lengths are left open, as for a pipe."""
    open_length = b"\xff\xff\xff\xff"
    facts = b"".join(
        number.to_bytes(size, "little")
        for number, size in ((16, 4), (1, 2), (1, 2), (rate, 4), (2 * rate, 4), (2, 2), (16, 2))
    )
    return b"RIFF" + open_length + b"WAVEfmt " + facts + b"data" + open_length
