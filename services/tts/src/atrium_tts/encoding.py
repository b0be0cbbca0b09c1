"""The formats that speech leaves in: what each takes, and how FFmpeg writes it.

`speech_plan.py` settles a request's encoding here; `encode.py` writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from atrium_common.errors import InvalidArgument
from atrium_tts.domain import AudioFormat

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Hz."""

MIN_BIT_RATE, MAX_BIT_RATE = 16_000, 320_000
"""Bits per second."""

# The rates that MPEG audio has a code for.
_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class Codec:
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
CODECS = {
    AudioFormat.MP3: Codec(
        "audio/mpeg",
        name="libmp3lame",
        container="mp3",
        options={"write_xing": "0"},
        encoder_options={"compression_level": "7"},  # speech needs no finer psychoacoustics
        sample_format="fltp",
        rates=_MPEG_RATES,
        bit_rate=64_000,
    ),
    AudioFormat.OPUS: Codec(
        "audio/ogg",
        name="libopus",
        container="ogg",
        options={"page_duration": "20000"},
        encoder_options={"vbr": "constrained"},
        sample_format="flt",
        rates=(24_000, 48_000),
        bit_rate=48_000,
    ),
    AudioFormat.AAC: Codec(
        "audio/aac",
        name="aac",
        container="adts",
        sample_format="fltp",
        rates=_MPEG_RATES,
        bit_rate=64_000,
    ),
    AudioFormat.FLAC: Codec("audio/flac", name="flac", container="flac"),
    AudioFormat.WAV: Codec("audio/wav"),
    AudioFormat.PCM: Codec("audio/pcm"),
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
        return CODECS[self.format].content_type


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
    codec = CODECS[audio_format]
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
    taken = CODECS[audio_format].rates
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
