"""Encodes speech while it is being made: samples in, bytes of one file out.

`speech_output.py` calls this, in a thread. The bytes of all calls together are one file;
the first of them leave right after the first samples.
"""

from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer

from atrium_tts.domain import AudioFormat
from atrium_tts.encoding import CODECS, Codec, Encoding
from atrium_tts.engines.base import Samples


class StreamEncoder:
    """Encodes one file. Blocks; one thread at a time may use it."""

    def __init__(self, encoding: Encoding, *, input_rate: int) -> None:
        """Opens the encoder.

        Args:
            encoding: What to write.
            input_rate: Samples per second of what `encode` is given.
        """
        self._input_rate = input_rate
        codec = CODECS[encoding.format]
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

    def __init__(self, encoding: Encoding, codec: Codec) -> None:
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
