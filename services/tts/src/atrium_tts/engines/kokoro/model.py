"""Kokoro's network in ONNX Runtime: phoneme symbols in, trimmed samples out.

`engine.py` runs it in its device thread.
"""

from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from atrium_tts.engines.base import Samples
from atrium_tts.engines.kokoro.phonemes import MOST, numbers
from atrium_tts.engines.kokoro.voices import FILE_ORDER

SAMPLE_RATE = 24_000
_STYLE = 256
"""Values in a style; a voice has one for each length of a text."""

_FRAME = SAMPLE_RATE // 100
_QUIET = 0.005
"""Part of the loudest 10 ms (root mean square) below which 10 ms are silent: -46 dB."""

_KNEE = 0.9
"""Amplitude from which on samples are bent."""

_LEAD = 0.04
_TAILS = {".": 0.3, "!": 0.3, "?": 0.3, "…": 0.4, ",": 0.15, ";": 0.2, ":": 0.2, "—": 0.15}
_TAIL = 0.1
"""Seconds of silence around speech, by the mark that ends it: what makes sentences join."""

BLANK = 0.25
"""Seconds of silence for a text in which nothing sounds."""


class KokoroModel:
    """The network and the styles of its voices. One caller at a time."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Loads `model.onnx` and maps `voices.bin`.

        Args:
            folder: Where they are.
            threads: Threads of one run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait in a loop would take the cores from the other services.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        shape = (len(FILE_ORDER), MOST, 1, _STYLE)
        self._styles = np.memmap(folder / "voices.bin", np.float32, mode="r", shape=shape)

    def speak(self, symbols: str, *, voice: str, speed: float) -> Samples:
        """Says one piece.

        Args:
            symbols: 1 to `MOST` of the vocabulary.
            voice: Id of a voice.
            speed: 0.5 to 2.

        Returns:
            Mono samples at `SAMPLE_RATE`, with a short silence before and behind them
            that depends on the last mark alone.
        """
        tokens = numbers(symbols)
        style = np.asarray(self._styles[FILE_ORDER.index(voice), len(tokens) - 1])
        (audio,) = self._session.run(
            ["audio"],
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": style,
                "speed": np.array([speed], np.float32),
            },
        )
        tail = _TAILS.get(symbols.rstrip('"”)“( ')[-1:], _TAIL)
        samples = limited(np.asarray(audio, np.float32).reshape(-1))
        return framed(samples, _LEAD / speed, tail / speed)


def silence(seconds: float) -> Samples:
    """Returns samples without sound."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def limited(audio: Samples) -> Samples:
    """Bends what is louder than `_KNEE` so that it stays below 1; the rest is untouched.

    Some voices overshoot on short words. Each sample is bent alone, so that a loud word
    does not make its sentence quieter than the next.
    """
    over = np.maximum(np.abs(audio) - _KNEE, 0)
    bent = _KNEE + (1 - _KNEE) * np.tanh(over / (1 - _KNEE))
    return np.where(over > 0, np.copysign(bent, audio), audio).astype(np.float32)


def framed(audio: Samples, lead: float, tail: float) -> Samples:
    """Cuts silence off both ends, or adds it, so that `lead` and `tail` seconds are left."""
    whole = audio[: audio.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    loudness = np.sqrt(np.mean(np.square(whole), axis=1))
    loud = np.flatnonzero(loudness > _QUIET * loudness.max(initial=0.0))
    if not loud.size:
        return silence(lead + tail)
    before, behind = round(lead * SAMPLE_RATE), round(tail * SAMPLE_RATE)
    start, end = int(loud[0]) * _FRAME - before, (int(loud[-1]) + 1) * _FRAME + behind
    speech = audio[max(0, start) : end]
    return np.pad(speech, (max(0, -start), max(0, end - audio.size)))
