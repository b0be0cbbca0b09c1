"""Stretched speech has the length that it should have, and its pitch."""

import numpy as np
import pytest

from atrium_tts.engines.base import Samples
from atrium_tts.tempo import TimeStretcher, is_heard

RATE = 24_000
HERTZ = 220.0


def tone(seconds: float) -> Samples:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * HERTZ * time)).astype(np.float32)


def stretched(samples: Samples, factor: float, *, size: int = 6_000) -> Samples:
    stretcher = TimeStretcher(factor, sample_rate=RATE)
    parts = [
        stretcher.stretch(samples[start : start + size]) for start in range(0, len(samples), size)
    ]
    return np.concatenate([*parts, stretcher.finish()])


@pytest.mark.parametrize("factor", [0.25, 0.4, 0.5, 0.8, 0.99, 1.1, 1.7, 2.0, 2.5, 3.3, 4.0, 16.0])
@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_length_changes_and_pitch_stays(factor: float, seconds: float) -> None:
    out = stretched(tone(seconds), factor)
    wanted = seconds * RATE / factor
    assert abs(len(out) - wanted) <= 0.02 * wanted
    # The last hundredth may fade where the filter has nothing to blend with.
    spectrum = np.abs(np.fft.rfft(out[: int(0.95 * len(out))], 1 << 19))
    assert spectrum.argmax() * RATE / (1 << 19) == pytest.approx(HERTZ, abs=3 + 1.0 / seconds)
    assert np.abs(out).max() <= 1.0
    loud = np.sqrt(np.mean(np.square(out)))
    assert 0.25 < loud < 0.45


@pytest.mark.parametrize("count", [0, 1, 500])
def test_next_to_nothing_is_stretched_too(count: int) -> None:
    out = stretched(tone(1.0)[:count], 0.5, size=100)
    assert len(out) == 2 * count
    assert len(TimeStretcher(2.0, sample_rate=RATE).finish()) == 0


def test_pieces_change_nothing() -> None:
    said = tone(2.0)
    np.testing.assert_array_equal(stretched(said, 1.5, size=100), stretched(said, 1.5, size=48_000))


def test_only_what_is_heard_is_stretched() -> None:
    assert [is_heard(factor) for factor in (1.0, 1.001, 0.999, 1.01, 0.9)] == [
        False,
        False,
        False,
        True,
        True,
    ]
