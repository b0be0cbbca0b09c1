"""Every format is one good file, as long as its samples, and begins at once."""

import io
from collections.abc import Iterator

import av
import numpy as np
import pytest

from atrium_common.errors import InvalidArgument
from atrium_tts.domain import AudioFormat
from atrium_tts.encode import StreamEncoder
from atrium_tts.encoding import Encoding, settle
from atrium_tts.engines.base import Samples

RATE = 24_000
FORMATS = list(AudioFormat)
# What a codec puts before and behind the sound: an encoder's delay and its last frame.
PADDING = {AudioFormat.MP3: 2 * 1152 + 576, AudioFormat.AAC: 2 * 1024}


def chirp(seconds: float, rate: int = RATE) -> Samples:
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.float32)


def pieces(samples: Samples, size: int) -> Iterator[Samples]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def encode(encoding: Encoding, samples: Samples, *, size: int = 6_000, rate: int = RATE) -> bytes:
    encoder = StreamEncoder(encoding, input_rate=rate)
    data = b"".join(encoder.encode(piece) for piece in pieces(samples, size)) + encoder.finish()
    encoder.close()
    return data


def decode(data: bytes, encoding: Encoding) -> tuple[Samples, int]:
    if encoding.format is AudioFormat.PCM:
        whole = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        return whole, encoding.sample_rate
    # Named, because a file of a few milliseconds may be taken for something else.
    name = {AudioFormat.OPUS: "ogg"}.get(encoding.format, str(encoding.format))
    with av.open(io.BytesIO(data), format=name) as container:
        resampler = av.AudioResampler(format="flt", layout="mono")
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        return np.concatenate([f.to_ndarray()[0] for f in frames]), frames[0].sample_rate


def likeness(heard: Samples, said: Samples) -> float:
    """The best correlation over all shifts, by FFT."""
    size = 1 << (len(heard) + len(said)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size))
    return float(np.fft.irfft(spectrum).max() / np.linalg.norm(said) / np.linalg.norm(heard))


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("sample_rate", [0, 8_000, 16_000, 44_100, 48_000])
def test_a_file_is_as_long_as_its_samples_and_sounds_like_them(
    audio_format: AudioFormat, sample_rate: int
) -> None:
    if audio_format is AudioFormat.OPUS and sample_rate not in (0, 48_000):
        with pytest.raises(InvalidArgument) as caught:
            settle(audio_format, sample_rate=sample_rate, bit_rate=None, own_rate=RATE)
        assert caught.value.field == "sample_rate"
        return
    encoding = settle(audio_format, sample_rate=sample_rate, bit_rate=None, own_rate=RATE)
    assert encoding.sample_rate == (sample_rate or RATE)
    said = chirp(6.0)
    heard, rate = decode(encode(encoding, said), encoding)
    expected = len(said) * encoding.sample_rate / RATE
    got = len(heard) * encoding.sample_rate / rate  # Opus always decodes at 48 kHz
    assert expected - 2 <= got <= expected + PADDING.get(audio_format, 2)
    if sample_rate != 8_000:  # where that padding alone is a fifth of a second
        assert abs(got - expected) <= 0.02 * expected
    again = np.interp(np.arange(0, len(heard), rate / RATE), np.arange(len(heard)), heard)
    assert likeness(again.astype(np.float32), said) > 0.97


@pytest.mark.parametrize("audio_format", FORMATS)
def test_the_first_bytes_leave_right_after_the_first_samples(audio_format: AudioFormat) -> None:
    encoding = settle(audio_format, sample_rate=0, bit_rate=None, own_rate=RATE)
    encoder = StreamEncoder(encoding, input_rate=RATE)
    tenths = [len(encoder.encode(piece)) for piece in pieces(chirp(2.0), RATE // 10)]
    encoder.close()
    # FLAC's frames are a tenth of a second; the others' are shorter.
    assert tenths[0] > 0 or (tenths[1] > 0 and audio_format is not AudioFormat.PCM)
    assert all(tenths[1:])


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 100])
def test_next_to_nothing_is_a_file_too(audio_format: AudioFormat, count: int) -> None:
    encoding = settle(audio_format, sample_rate=0, bit_rate=None, own_rate=RATE)
    data = encode(encoding, np.full(count, 0.1, np.float32), size=1)
    if count:
        heard, _ = decode(data, encoding)
        assert len(heard) >= count
    unfinished = StreamEncoder(encoding, input_rate=RATE)
    unfinished.close()
    unfinished.close()


@pytest.mark.parametrize("audio_format", FORMATS)
def test_what_is_out_of_range_is_clipped_and_what_is_no_number_is_silent(
    audio_format: AudioFormat,
) -> None:
    encoding = settle(audio_format, sample_rate=0, bit_rate=None, own_rate=RATE)
    wild = np.full(RATE, 3.0, np.float32)
    wild[RATE // 2 :] = np.nan
    heard, rate = decode(encode(encoding, wild), encoding)
    assert np.isfinite(heard).all()
    assert np.abs(heard[-rate // 5 :]).max() < 0.05


def test_bit_rates_are_honoured_or_refused_by_name() -> None:
    said = chirp(4.0)
    for audio_format in (AudioFormat.MP3, AudioFormat.AAC, AudioFormat.OPUS):
        sizes = []
        for bit_rate in (16_000, 32_000, 64_000):
            encoding = settle(audio_format, sample_rate=0, bit_rate=bit_rate, own_rate=RATE)
            sizes.append(len(encode(encoding, said)) * 8 / 4.0)
        # Ogg's pages of 20 ms add 12 kbit/s.
        assert sizes == pytest.approx([16_000, 32_000, 64_000], rel=0.2, abs=16_000)
        assert sizes[0] < sizes[1] < sizes[2]
    for audio_format in (AudioFormat.FLAC, AudioFormat.WAV, AudioFormat.PCM):
        with pytest.raises(InvalidArgument) as caught:
            settle(audio_format, sample_rate=0, bit_rate=64_000, own_rate=RATE)
        assert caught.value.field == "bit_rate"


@pytest.mark.parametrize(
    ("audio_format", "sample_rate", "bit_rate", "field"),
    [
        (AudioFormat.MP3, 23_000, None, "sample_rate"),
        (AudioFormat.AAC, 23_000, None, "sample_rate"),
        (AudioFormat.OPUS, 16_000, None, "sample_rate"),
        (AudioFormat.PCM, 7_999, None, "sample_rate"),
        (AudioFormat.WAV, 48_001, None, "sample_rate"),
        (AudioFormat.FLAC, -1, None, "sample_rate"),
        (AudioFormat.MP3, 0, 15_999, "bit_rate"),
        (AudioFormat.MP3, 0, 160_001, "bit_rate"),
        (AudioFormat.MP3, 48_000, 320_001, "bit_rate"),
        (AudioFormat.MP3, 48_000, 31_999, "bit_rate"),
        (AudioFormat.OPUS, 0, 256_001, "bit_rate"),
        (AudioFormat.AAC, 8_000, 48_001, "bit_rate"),
    ],
)
def test_what_a_format_does_not_take_is_refused_by_name(
    audio_format: AudioFormat, sample_rate: int, bit_rate: int | None, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        settle(audio_format, sample_rate=sample_rate, bit_rate=bit_rate, own_rate=RATE)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("audio_format", "own", "taken"),
    [
        (AudioFormat.OPUS, 22_050, 24_000),
        (AudioFormat.OPUS, 44_100, 48_000),
        (AudioFormat.MP3, 22_050, 22_050),
        (AudioFormat.MP3, 20_000, 22_050),
        (AudioFormat.WAV, 20_000, 20_000),
        (AudioFormat.PCM, 96_000, 48_000),
    ],
)
def test_a_rate_that_was_left_open_is_the_models_or_the_next(
    audio_format: AudioFormat, own: int, taken: int
) -> None:
    assert settle(audio_format, sample_rate=0, bit_rate=None, own_rate=own).sample_rate == taken
